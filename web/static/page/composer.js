/** Where a question is written: to the model, or with an answer of one's own. */

import { one } from "../common/dom.js";

/** The form; tells which of the two somebody wants. */
export class Composer {
  #form;
  #prompt;
  #response;

  /**
   * @param {HTMLFormElement} form
   * @param {{ask: (prompt: string) => void, bring: (prompt: string, response: string) => void}} actions
   */
  constructor(form, { ask, bring }) {
    this.#form = form;
    this.#prompt = /** @type {HTMLTextAreaElement} */ (one(form, "#prompt"));
    this.#response = /** @type {HTMLTextAreaElement} */ (one(form, "#response"));
    for (const mode of /** @type {const} */ (["chat", "own"])) {
      one(form, `.${mode}`).addEventListener("click", () => {
        this.mode = mode;
        this.#prompt.focus();
      });
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.mode === "own") return bring(this.#prompt.value, this.#response.value);
      ask(this.#prompt.value);
      this.#prompt.value = "";
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      const asks = this.mode === "chat" && event.target === this.#prompt && !event.shiftKey;
      if (!asks && !event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      form.requestSubmit();
    });
  }

  /** `chat`: the model answers; `own`: the user brings the answer. @returns {"chat" | "own"} */
  get mode() {
    return one(this.#form, ".own").getAttribute("aria-pressed") === "true" ? "own" : "chat";
  }

  set mode(mode) {
    for (const name of ["chat", "own"]) {
      one(this.#form, `.${name}`).setAttribute("aria-pressed", String(name === mode));
    }
    const own = mode === "own";
    one(this.#form, ".own-answer").hidden = !own;
    this.#response.required = own;
    one(this.#form, ".primary").textContent = own ? "Attribute" : "Ask";
    one(this.#form, ".keys").textContent = own ? "Ctrl + Enter" : "Enter";
  }

  /** No model answers here. */
  withoutChat() {
    this.mode = "own";
    one(this.#form, ".modes").hidden = true;
  }

  /** Show a prompt and an answer to work on. @param {string} prompt @param {string} response */
  fill(prompt, response) {
    this.#prompt.value = prompt;
    this.#response.value = response;
  }
}
