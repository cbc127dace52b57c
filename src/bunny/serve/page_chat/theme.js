// Before anything is painted: the colours chosen last time. Without a choice, those of the system.
try {
  const chosen = localStorage.getItem("bunny-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* a browser that keeps nothing: the system's colours */ }
