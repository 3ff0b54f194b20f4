/** Markup and styles of the sidebar, fetched once from beside this module.
 *
 * A foreign page may forbid inline styles, style sheets of other hosts and strings as HTML: a sheet
 * made by script and a document parsed by XMLHttpRequest, which runs nothing, need none of these.
 */

const [sheetText, page] = await Promise.all([
  fetch(new URL("sidebar.css", import.meta.url)).then(text),
  parsed(new URL("sidebar.html", import.meta.url)),
]);

const sheet = new CSSStyleSheet();
sheet.replaceSync(sheetText);

/** Where the templates are. */
export const templates = page;

/** The sheet, shared by all sidebars of a page. */
export { sheet };

/** @param {Response} answer */
function text(answer) {
  if (!answer.ok) throw new Error(`${answer.url} answered with status ${answer.status}`);
  return answer.text();
}

/** @param {URL} address @returns {Promise<Document>} */
function parsed(address) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const failed = () => reject(new Error(`${address} could not be read`));
    request.open("GET", address);
    request.responseType = "document";
    request.addEventListener("error", failed);
    request.addEventListener("load", () => (request.response ? resolve(request.response) : failed()));
    request.send();
  });
}
