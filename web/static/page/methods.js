/** The page at `/methods`: the project's own account of its method, drawn from Markdown. */

import { element, one } from "../common/dom.js";
import { markdown } from "../common/markdown.js";

const place = one(document, "main");
try {
  const answer = await fetch("methods.md");
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  place.replaceChildren(...markdown(await answer.text(), 2));
} catch (error) {
  const reason = /** @type {Error} */ (error).message;
  place.replaceChildren(element("p", `The text could not be read (${reason}). Load the page again.`));
}
place.setAttribute("aria-busy", "false");
