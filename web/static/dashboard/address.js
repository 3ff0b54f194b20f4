/** Which view, of what, under which filters: all of it is in the address, so it can be sent on. */

const VIEWS = ["owners", "documents", "answers", "quality", "document", "owner"];
const FILTERS = ["period", "owner", "source"];

/** The view that the address names. @returns {string} */
export function viewName() {
  const name = new URLSearchParams(location.search).get("view") ?? "";
  return VIEWS.includes(name) ? name : VIEWS[0];
}

/** What the server is asked with. @returns {URLSearchParams} */
export function filters() {
  const here = new URLSearchParams(location.search);
  const kept = new URLSearchParams();
  for (const name of [...FILTERS, "id"]) {
    const value = here.get(name);
    if (value) kept.set(name, value);
  }
  return kept;
}

/**
 * Address of another view with the filters of this one.
 * @param {string} view
 * @param {?string=} id Of the views document and owner.
 * @returns {string}
 */
export function addressOf(view, id) {
  const there = filters();
  there.delete("id");
  if (view === "owner") there.delete("owner");
  if (id) there.set("id", id);
  there.set("view", view);
  return `?${there}`;
}

/** Address of this view with other filters. @param {FormData} form @returns {string} */
export function filteredBy(form) {
  const there = filters();
  for (const name of FILTERS) {
    const value = String(form.get(name) ?? "").trim();
    if (value) there.set(name, value);
    else there.delete(name);
  }
  there.set("view", viewName());
  return `?${there}`;
}
