/** How numbers and foreign words are written in a prompt; docs/prompts.md has the rules. */

export const UNKNOWN = "n/a";

// From here on a number means nothing in a prompt, and could make it endless.
const TOO_LARGE = 1e15;
// The smallest price that is written with so many decimals, by decimals: 5 digits from 1e-8 on.
const PRICE_FLOORS = [1e4, 1e3, 1e2, 1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7];
// Printable ASCII without what could end a quotation or look like a tag or a fence.
const FOREIGN = /[^ !#$%&'()*+,\-./0-9:;=?@A-Z[\]^_a-z{|}~]/gu;

export type MaybeNumber = number | null | undefined;

/** Rounded half away from zero, without a sign at zero; `n/a` where unknown. */
export function fixed(value: MaybeNumber, decimals: number): string {
  if (!isKnown(value) || Math.abs(value) >= TOO_LARGE) return UNKNOWN;
  const text = value.toFixed(decimals);
  return /^-[0.]+$/.test(text) ? text.slice(1) : text;
}

/** The same with a plus sign above zero. */
export function signed(value: MaybeNumber, decimals: number): string {
  const text = fixed(value, decimals);
  return text === UNKNOWN || text.startsWith("-") || /^[0.]+$/.test(text) ? text : `+${text}`;
}

/** A written number with a percent sign, if it is known. */
export function percent(written: string): string {
  return written === UNKNOWN ? written : `${written}%`;
}

/** The decimals that show five digits of a price; those of 1 where it is unknown. */
export function priceDecimals(price: MaybeNumber): number {
  const known = isKnown(price) ? price : 1;
  const decimals = PRICE_FLOORS.findIndex((floor) => known >= floor);
  return decimals < 0 ? PRICE_FLOORS.length : decimals;
}

/** Foreign text in double quotes, bounded in code points; what could leave the quotes becomes `?`. */
export function quoted(text: string, mostCharacters: number): string {
  const characters = [...text];
  const cut = characters.length <= mostCharacters ? text : `${characters.slice(0, mostCharacters).join("")}...`;
  return `"${cut.replace(FOREIGN, "?")}"`;
}

export function isKnown(value: MaybeNumber): value is number {
  return typeof value === "number" && Number.isFinite(value);
}
