/** On its own, so that the public types need none of Node.js. */

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
