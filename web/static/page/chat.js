/** An answer as the server streams it: pieces of text, then what it came from. */

import { Problem, refusal, unreachable } from "../common/server.js";

/**
 * @typedef {import("../common/server.js").Server} Server
 * @typedef {import("../common/server.js").Attribution} Attribution
 * @typedef {import("../common/server.js").Message} Message
 * @typedef {{text?: string, attribution?: Attribution}} Piece
 */

/**
 * @param {Server} server
 * @param {{model: string, messages: Message[], attribution: object}} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Piece>}
 */
export async function* streamChat(server, body, signal) {
  const answer = await server.send("v1/chat/completions", { body: { ...body, stream: true }, signal });
  if (!answer.ok || answer.body === null) throw await refusal(answer);
  for await (const event of events(answer.body)) {
    if (event === "[DONE]") return;
    const { error, choices, attribution } = JSON.parse(event);
    if (error) throw new Problem({ title: "The answer broke off", detail: error.message });
    const text = choices?.[0]?.delta?.content;
    if (text) yield { text };
    if (attribution) yield { attribution };
  }
  throw new Problem({
    title: "The answer broke off",
    detail: "The server ended the answer in the middle. Try again in a moment.",
  });
}

/** The data of server-sent events. @param {ReadableStream<Uint8Array>} body */
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        throw unreachable(error);
      });
      if (done) return;
      const parts = (waiting + decoder.decode(value, { stream: true })).split(/\r?\n\r?\n/);
      waiting = parts.pop() ?? "";
      for (const part of parts) {
        const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (data.length > 0) yield data.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // nobody reads on; the server is told
  }
}
