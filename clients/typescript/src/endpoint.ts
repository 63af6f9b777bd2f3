/** Where a server is: `tcp://host:port` or `tls://host:port`. */

import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { createSecureContext, type SecureContext } from "node:tls";
import { InvalidInputError } from "./errors.js";
import type { TlsOptions } from "./tls_options.js";

const DEFAULT_PORT = 7879;

export interface Endpoint {
  readonly host: string;
  readonly port: number;
  /** Null is plain TCP. An IP address is no `servername`. */
  readonly tls: { readonly secureContext: SecureContext; readonly servername?: string } | null;
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
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  return {
    host,
    port: url.port === "" ? DEFAULT_PORT : Number(url.port),
    tls: isPlain && tls === null ? null : secured(host, tls ?? {}),
    token,
  };
}

function secured(host: string, { servername, ...certificates }: TlsOptions): NonNullable<Endpoint["tls"]> {
  const name = servername ?? (isIP(host) === 0 ? host : undefined);
  try {
    // What is no certificate would be passed over, and every server refused.
    for (const pem of [certificates.ca ?? []].flat()) new X509Certificate(pem);
    const secureContext = createSecureContext(certificates);
    return name === undefined ? { secureContext } : { secureContext, servername: name };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InvalidInputError(`the certificates or keys of the option tls cannot be used: ${reason}`, { cause: error });
  }
}
