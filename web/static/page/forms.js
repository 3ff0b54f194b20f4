/** The two small forms under an answer: edit it, or compare it with another. */

import { copy, element, one } from "../common/dom.js";
import { quoted } from "../common/words.js";

/** @typedef {import("./turn.js").Turn} Turn */

/**
 * @param {Turn} turn
 * @param {HTMLElement} place
 * @param {(response: string) => void} done
 */
export function editForm(turn, place, done) {
  const form = /** @type {HTMLFormElement} */ (copy(document, "edit"));
  const field = /** @type {HTMLTextAreaElement} */ (one(form, "textarea"));
  field.value = turn.response;
  open(turn, form, place, () => done(field.value));
  field.focus();
}

/**
 * @param {Turn} turn
 * @param {readonly Turn[]} others Other answers to the same prompt.
 * @param {HTMLElement} place
 * @param {(alternative: string) => void} done
 */
export function compareForm(turn, others, place, done) {
  const form = /** @type {HTMLFormElement} */ (copy(document, "compare"));
  const field = /** @type {HTMLTextAreaElement} */ (one(form, "textarea"));
  const select = /** @type {HTMLSelectElement} */ (one(form, "select"));
  const different = others.filter(({ response }) => response && response !== turn.response);
  one(form, ".others").hidden = different.length === 0;
  for (const { response } of different) {
    const option = /** @type {HTMLOptionElement} */ (element("option", quoted(response)));
    option.value = response;
    select.append(option);
  }
  const check = () => {
    const same = field.value === turn.response;
    field.setCustomValidity(same ? "This is the answer itself; give a different one." : "");
  };
  field.addEventListener("input", check);
  select.addEventListener("change", () => {
    field.value = select.value;
    check();
  });
  open(turn, form, place, () => done(field.value));
  (different.length > 0 ? select : field).focus();
}

/**
 * @param {Turn} turn
 * @param {HTMLFormElement} form
 * @param {HTMLElement} place
 * @param {() => void} done
 */
function open(turn, form, place, done) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    turn.closeForms();
    done();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") turn.closeForms();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  one(form, ".cancel").addEventListener("click", () => turn.closeForms());
  place.replaceChildren(form);
}
