// Applies the theme that the user chose, before the first paint: this is no module, so that the browser runs it at once.
"use strict";
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* storage is blocked: the theme of the system stays */ }
