/* Opened from disk, a page may not read its neighbours: the search then lists titles
   without the excerpts that it would fetch from them. */
if (window.location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}
