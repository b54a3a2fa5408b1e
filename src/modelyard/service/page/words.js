// What the page says, in the browser's language.
const WORDS = {
  en: {
    tryIt: "Try it",
    report: "Report",
    apiTitle: "API",
    download: "Everything here, for programs",
    body: "Body",
    headers: "Headers and path",
    example: "Example",
    schema: "Schema",
    replies: "Replies",
    required: "required",
    docs: "API docs",
    examples: "Examples",
    send: "Predict",
    sending: "Predicting…",
    keys: "Ctrl + Enter",
    macKeys: "⌘ + Return",
    call: "The same call from a terminal",
    copy: "Copy",
    copied: "Copied",
    version: (v) => `Version ${v}`,
    answersWith: (n) => `one of ${n} labels`,
    answersWithAny: (n) => `any of ${n} labels`,
    answersWithSpans: (n) => `spans with ${n} ${n === "1" ? "label" : "labels"}`,
    noLabel: "no label",
    spans: (n) => (n === "1" ? "1 span" : `${n} spans`),
    noSpan: "no span",
    candidates: (n) => (n === "1" ? "the nearest candidate" : `the ${n} nearest`),
    noCandidate: "no candidate",
    left: (n) => `${n} characters left`,
    over: (n) => `${n} characters too many`,
    facts: (ms, tokens) => `${ms} ms · ${tokens} ${tokens === 1 ? "token" : "tokens"}`,
    all: (n) => `Show all ${n}`,
    fewer: (n) => `Show the top ${n}`,
    said: (label, percent) => `${label}, ${percent}`,
    between: (low, high) => `Nine times in ten the truth should lie between ${low} and ${high}.`,
    saidNumber: (value, low, high) => `${value}, between ${low} and ${high}`,
    refused: "No answer",
    key: "Key",
    keyKept: "Stays in this page only; it is not stored.",
    noKey: "This service answers those who have a key; give yours first.",
    keyRefused: "The key was refused.",
    notAllowed: "The key may not do this.",
    limited: "A limit of the key is reached.",
    limitedUntil: (s) => `A limit of the key is reached; try again in ${s} s.`,
    choose: "Choose an image, drop it here, or paste it",
    change: "Choose another image",
    noImage: (name) => `Choose an image for “${name}” first.`,
    empty: (name) => `Type something into “${name}” first.`,
    tooLong: (most) => `The text is too long; at most ${most} characters can be read.`,
    busy: (s) => `The service is busy; try again in ${s} s.`,
    offline: "The service does not answer; is it still running?",
    failed: "The service failed at this request; its log says why.",
  },
  zh: {
    tryIt: "试一试",
    report: "评估报告",
    apiTitle: "接口",
    download: "本页内容的机器可读版本",
    body: "请求体",
    headers: "请求头与路径",
    example: "示例",
    schema: "模式",
    replies: "响应",
    required: "必填",
    docs: "接口文档",
    examples: "示例",
    send: "预测",
    sending: "正在预测…",
    keys: "Ctrl + Enter",
    macKeys: "⌘ + Return",
    call: "在终端里调用同一接口",
    copy: "复制",
    copied: "已复制",
    version: (v) => `版本 ${v}`,
    answersWith: (n) => `${n} 选 1`,
    answersWithAny: (n) => `${n} 个标签，可多选`,
    answersWithSpans: (n) => `标注片段，共 ${n} 种标签`,
    noLabel: "没有标签",
    spans: (n) => `${n} 个片段`,
    noSpan: "没有片段",
    candidates: (n) => `最相近的 ${n} 个`,
    noCandidate: "没有候选项",
    left: (n) => `还可输入 ${n} 个字符`,
    over: (n) => `超出 ${n} 个字符`,
    facts: (ms, tokens) => `${ms} 毫秒 · ${tokens} 个词元`,
    all: (n) => `显示全部 ${n} 个`,
    fewer: (n) => `只显示前 ${n} 个`,
    said: (label, percent) => `${label}，${percent}`,
    between: (low, high) => `真实值应有九成落在 ${low} 与 ${high} 之间。`,
    saidNumber: (value, low, high) => `${value}，介于 ${low} 与 ${high} 之间`,
    refused: "没有结果",
    key: "密钥",
    keyKept: "只留在本页，不会保存。",
    noKey: "使用本服务需要密钥，请先填写。",
    keyRefused: "密钥未被接受。",
    notAllowed: "此密钥没有这项权限。",
    limited: "此密钥已达到限额。",
    limitedUntil: (s) => `此密钥已达到限额，请在 ${s} 秒后重试。`,
    choose: "选择图片，或拖到这里，或粘贴",
    change: "换一张图片",
    noImage: (name) => `请先为“${name}”选择图片。`,
    empty: (name) => `请先在“${name}”中输入内容。`,
    tooLong: (most) => `文本太长，最多可读 ${most} 个字符。`,
    busy: (s) => `服务繁忙，请在 ${s} 秒后重试。`,
    offline: "服务没有响应，它还在运行吗？",
    failed: "服务处理这次请求时出错，原因见服务日志。",
  },
};

export const language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
export const words = WORDS[language];

// Numbers as the language writes them.
export const number = (value) => new Intl.NumberFormat(language).format(value);

// Value and ends of an interval, with as many decimals as its width can mean.
export function amounts({ value, low, high }) {
  const size = high - low || Math.abs(value) || 1;
  const decimals = Math.min(20, Math.max(0, 2 - Math.floor(Math.log10(size))));
  const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  const format = new Intl.NumberFormat(language, digits);
  return [value, low, high].map((each) => format.format(each));
}

// A share as a percentage; one that is not quite 0 or 1 does not look so.
export function percent(share) {
  const unit = language === "zh" ? "%" : "\u202f%";
  if (share > 0 && share < 0.001) return `< 0.1${unit}`;
  if (share < 1 && share > 0.999) return `> 99.9${unit}`;
  return `${(share * 100).toFixed(1)}${unit}`;
}

// Put the words in place of those the page came with.
export function translate(root) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const each of root.querySelectorAll("[data-word]")) each.textContent = words[each.dataset.word];
}
