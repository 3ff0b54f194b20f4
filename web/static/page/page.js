/** The page at `/`: a conversation, and beside it what its answers came from. */

import "../most-valuable-data.js";
import { one } from "../common/dom.js";
import { UNAUTHENTICATED, key } from "../common/key.js";
import { readPermalink } from "../common/permalink.js";
import { Server } from "../common/server.js";
import { count } from "../common/words.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { KeyForm } from "./key.js";

const NOT_FOUND = 404;

/** @type {import("../most-valuable-data.js").MostValuableData} */
const sidebar = one(document, "#sidebar");
const facts = one(document, ".index-facts");
const server = () => new Server(new URL("./", document.baseURI).href, key());

const keyForm = new KeyForm(one(document, "form.key"), (given) => sidebar.setAttribute("token", given));
const conversation = new Conversation(one(document, ".talk"), sidebar, server, (problem, retry) =>
  keyForm.ask(problem, retry),
);
const composer = new Composer(one(document, ".composer"), {
  ask: (prompt) => conversation.ask(prompt),
  bring: (prompt, response) => conversation.trace(conversation.bring(prompt, response)),
});

const given = key();
if (given) sidebar.setAttribute("token", given);
sidebar.addEventListener("error", (event) => {
  const { detail: problem } = /** @type {CustomEvent} */ (/** @type {Event} */ (event));
  if (problem.status === UNAUTHENTICATED) keyForm.ask(problem);
});
sidebar.addEventListener("attribution", () => {
  if (facts.hidden) describeIndex(); // the server was still loading when the page came
});
window.addEventListener("hashchange", followLink);

followLink();
describeIndex();
offerChat();

/** Somebody came by a link to an attribution. */
async function followLink() {
  const linked = readPermalink(location.hash);
  if (!linked) return;
  const { prompt, response, context, span, alternative, requestId } = linked;
  const turn = conversation.bring(prompt, response, context);
  composer.mode = "own";
  composer.fill(prompt, response);
  // While the server keeps it, the very same answer; later it is computed again.
  const kept = requestId && !span && !alternative && (await server().attribution(requestId).catch(() => null));
  turn.attribution = kept || null;
  conversation.trace(turn, { span, alternative });
}

/** The masthead says what is served; the page works as well without it. */
async function describeIndex() {
  const served = await server().info().catch(() => null);
  if (served === null) return;
  const model = served.model.split("/").at(-1); // a folder's path says nothing to a reader
  const method = served.index.method === "source" ? " · along its training" : "";
  facts.textContent = `${model} · ${count(served.index.documents, "document")}${method}`;
  facts.hidden = false;
}

/** A server that only attributes has no model to ask. */
async function offerChat() {
  const problem = await server().models().catch((problem) => problem);
  if (problem.status === NOT_FOUND) composer.withoutChat();
}
