// Sets the chosen theme before the first paint; without a choice the system's holds.
try {
  const chosen = localStorage.getItem("fanfare-theme")
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen
} catch {
  // Storage may be forbidden; then the system's theme holds.
}
