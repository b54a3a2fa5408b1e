import { words } from "./words.js";

// An image to ask about: chosen, dropped or pasted, and shown as it will be sent.

const READ = "image/png,image/jpeg,image/webp,image/gif,image/bmp";

export function imageField(name, id, changed) {
  const input = Object.assign(document.createElement("input"), { type: "file", accept: READ, id });
  const shown = Object.assign(document.createElement("img"), { alt: "", hidden: true });
  const hint = Object.assign(document.createElement("span"), { className: "small muted", textContent: words.choose });
  const place = Object.assign(document.createElement("div"), { className: "drop" });
  place.append(shown, hint, input);
  let url = "";

  function put(value, told = "") {
    url = value;
    shown.hidden = !url;
    if (url) shown.src = url;
    else shown.removeAttribute("src");
    hint.textContent = told || (url ? words.change : words.choose);
    input.removeAttribute("aria-invalid");
    changed();
  }

  function read(file) {
    if (!file) return;
    const reader = new FileReader();
    reader.addEventListener("load", () => put(reader.result, file.name));
    reader.readAsDataURL(file);
  }

  input.addEventListener("change", () => read(input.files[0]));
  place.addEventListener("dragover", (event) => {
    event.preventDefault();
    place.classList.add("over");
  });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    read(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => read(event.clipboardData.files[0]));
  shown.addEventListener("error", () => (shown.hidden = true));

  return {
    element: place,
    control: input,
    get value() {
      return url;
    },
    put,
    problem: (limits) => {
      if (!url) return words.noImage(name);
      return url.length > limits.max_body_bytes && words.largeImage;
    },
  };
}
