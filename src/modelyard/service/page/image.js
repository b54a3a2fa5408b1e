import { words } from "./words.js";

// A control that holds an image as a data: URL: chosen, dropped or pasted, and shown.

const READ = "image/png,image/jpeg,image/webp,image/gif,image/bmp";

export function imageControl(name) {
  const control = Object.assign(document.createElement("input"), { type: "hidden" });
  const file = Object.assign(document.createElement("input"), { type: "file", accept: READ });
  const shown = Object.assign(document.createElement("img"), { alt: "", hidden: true });
  const hint = Object.assign(document.createElement("span"), { className: "small muted" });
  const place = Object.assign(document.createElement("label"), { className: "drop" });
  file.setAttribute("aria-label", name);
  place.append(shown, hint, file);

  function show() {
    shown.hidden = !control.value;
    if (control.value) shown.src = asUrl(control.value);
    hint.textContent = control.fileName ?? (control.value ? words.change : words.choose);
  }

  function put(chosen) {
    if (!chosen) return;
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      control.value = reader.result;
      control.fileName = chosen.name;
      control.dispatchEvent(new Event("input"));
    });
    reader.readAsDataURL(chosen);
  }

  control.addEventListener("input", (event) => {
    if (event.example) control.fileName = undefined;
    show();
  });
  shown.addEventListener("error", () => (shown.hidden = true));
  file.addEventListener("change", () => put(file.files[0]));
  place.addEventListener("dragover", (event) => event.preventDefault());
  place.addEventListener("dragenter", () => place.classList.add("over"));
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    put(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => put(event.clipboardData.files[0]));
  show();
  return Object.assign(control, { shell: place, focus: () => file.focus() });
}

// Base64 alone is an image too; what kind it is the browser finds out.
export const asUrl = (value) => (value.startsWith("data:") ? value : `data:image/png;base64,${value}`);
