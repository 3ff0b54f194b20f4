/** The API key: kept for this tab alone, and sent by the pages that ask this server. */

const KEY = "whence-key";

/** The status of an answer to one who gave none that is valid. */
export const UNAUTHENTICATED = 401;

/** The key of this tab. */
export function key() {
  return sessionStorage.getItem(KEY);
}

/** Use a key from now on. @param {string} given */
export function useKey(given) {
  sessionStorage.setItem(KEY, given);
}
