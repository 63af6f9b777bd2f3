/** Where a server is: `tcp://host:port` or `tls://host:port`. */

import { isIP } from "node:net";
import { InvalidInputError } from "./errors.js";

const DEFAULT_PORT = 7879;

/** Certificates and keys as PEM text. */
export interface TlsOptions {
  /** Who may have signed the server's certificate; by default the authorities that Node.js knows. */
  ca?: string | string[] | undefined;
  /** The client's own certificate, where the server asks for one. */
  cert?: string | undefined;
  key?: string | undefined;
  passphrase?: string | undefined;
  /** The name that the server's certificate must have; by default the host of the address. */
  servername?: string | undefined;
}

export interface Endpoint {
  readonly host: string;
  readonly port: number;
  /** Null is plain TCP. */
  readonly tls: TlsOptions | null;
  readonly token: string | null;
}

export function parseEndpoint(address: string, token: string | null, tls: TlsOptions | null): Endpoint {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url?.protocol === "http:" || url?.protocol === "https:") {
    throw new InvalidInputError(
      `${JSON.stringify(address)}: this client speaks JSON-RPC over TCP; such as tcp://127.0.0.1:${DEFAULT_PORT}`,
    );
  }
  const isPlain = url?.protocol === "tcp:";
  if (url === null || !(isPlain || url.protocol === "tls:") || url.hostname === "" || url.port === "0") {
    throw new InvalidInputError(
      `${JSON.stringify(address)} is no address of a server; such as tcp://127.0.0.1:${DEFAULT_PORT} or ` +
        `tls://rag.example.com:${DEFAULT_PORT}`,
    );
  }
  return {
    host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port: url.port === "" ? DEFAULT_PORT : Number(url.port),
    tls: isPlain ? tls : (tls ?? {}),
    token,
  };
}

/** The name of a server for its certificate; an IP address is none. */
export function serverName(endpoint: Endpoint): string | undefined {
  return endpoint.tls?.servername ?? (isIP(endpoint.host) ? undefined : endpoint.host);
}
