/** The page at `/`: a prompt and a response go in, the panel shows what they came from. */

import { attribute, info, useKey } from "./api.js";
import { Panel } from "./panel.js";
import { count } from "./words.js";

const UNAUTHENTICATED = 401;

const form = document.querySelector("form.question");
const element = document.querySelector("#answer");
const facts = document.querySelector(".index-facts");
const panel = new Panel(element);
let running = null;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask(question());
});

form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});

describeIndex();

function question() {
  const fields = new FormData(form);
  return {
    prompt: fields.get("prompt"),
    response: fields.get("response"),
    top_k: Number(fields.get("top_k")),
    ranking: fields.get("ranking"),
  };
}

/** Only the newest question counts: an older one is cancelled, also on the server. */
async function ask(body) {
  running?.abort();
  const mine = (running = new AbortController());
  panel.working(() => {
    mine.abort();
    panel.empty();
    form.elements.response.focus();
  });
  reveal();
  try {
    const found = await attribute(body, mine.signal);
    if (running === mine) panel.answer(found);
    if (facts.hidden) describeIndex(); // the server was still loading when the page came
  } catch (problem) {
    if (problem.name === "AbortError" || running !== mine) return;
    const again = () => ask(body);
    if (problem.status !== UNAUTHENTICATED) return panel.error(problem, again);
    panel.needsKey(problem, (key) => {
      useKey(key);
      again();
    });
  }
}

/** On a phone the panel lies below the form: bring it into view without stealing the focus. */
function reveal() {
  if (element.getBoundingClientRect().top > window.innerHeight * 0.6) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    element.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }
}

/** The masthead says what is served; the page works as well without it. */
async function describeIndex() {
  const served = await info().catch(() => null);
  if (served === null) return;
  const model = served.model.split("/").at(-1); // a folder's path says nothing to a reader
  const method = served.index.method === "source" ? " · along its training" : "";
  facts.textContent = `${model} · ${count(served.index.documents, "document")}${method}`;
  facts.hidden = false;
}
