/** A link to an attribution: its id, and its texts behind the `#`, which browsers send nowhere. */

/**
 * @typedef {{prompt: string, response: string, requestId?: string,
 *   context?: readonly import("./server.js").Message[],
 *   span?: ?{start: number, end: number}, alternative?: ?string}} Linked
 */

/**
 * @param {URL | string} page
 * @param {Linked} linked
 */
export function permalink(page, { prompt, response, context, requestId, span, alternative }) {
  const fields = new URLSearchParams({
    ...(requestId && { attribution: requestId }),
    prompt,
    response,
    ...(context?.length && { context: JSON.stringify(context) }),
    ...(span && { span: `${span.start}-${span.end}` }),
    ...(alternative && { alternative }),
  });
  return new URL(`#${fields}`, page).href;
}

/**
 * What a link leads to; null where it leads to nothing in particular.
 * @param {string} hash
 * @returns {?Linked}
 */
export function readPermalink(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const prompt = fields.get("prompt");
  const response = fields.get("response");
  if (!prompt || !response) return null;
  /** @type {import("./server.js").Message[]} */
  let context = [];
  try {
    context = JSON.parse(fields.get("context") ?? "[]");
  } catch {
    return null; // a link that was cut
  }
  const [start, end] = (fields.get("span") ?? "").split("-").map(Number);
  return {
    prompt,
    response,
    context,
    requestId: fields.get("attribution") ?? undefined,
    span: end > start ? { start, end } : null,
    alternative: fields.get("alternative"),
  };
}
