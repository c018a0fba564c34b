// Record sound, video or a photo in the page.

import { element, t } from "./text.js";

const TYPES = {
  audio: ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"],
  video: ["video/webm;codecs=vp9,opus", "video/webm", "video/mp4"],
};
const MOST_SECONDS = 300;

// Browsers lend a camera or a microphone only to pages of this machine and to those that come by https.
export function canRecord() {
  return Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
}

// Return the recorded file, or null if it was cancelled. Raises what the browser raises if it does not allow it.
export async function record(family, host) {
  const picture = family === "image" ? { facingMode: "environment", width: { ideal: 1920 } } : family === "video";
  const stream = await navigator.mediaDevices.getUserMedia({ audio: family !== "image", video: picture });
  host.hidden = false;
  try {
    return family === "image" ? await photo(stream, host) : await recording(family, stream, host);
  } finally {
    for (const track of stream.getTracks()) track.stop();
    host.replaceChildren();
    host.hidden = true;
  }
}

function viewfinder(stream) {
  const video = element("video", { muted: true, playsinline: true, autoplay: true, "aria-hidden": "true", tabindex: "-1" });
  video.muted = true;
  video.srcObject = stream;
  return video;
}

// Show buttons in `host`; call `finish` for the first, and `cancel` for the second or the Escape key.
function controls(host, label, finish, cancel, ...others) {
  const done = element("button", { type: "button", class: "primary", onclick: finish }, label);
  const stop = element("button", { type: "button", onclick: cancel }, t("record.cancel"));
  host.onkeydown = (event) => { if (event.key === "Escape") cancel(); };
  // The buttons stay where they are while a viewfinder below them gets its size.
  host.append(element("div", { class: "actions" }, done, stop), ...others);
  done.focus();
}

function photo(stream, host) {
  const video = viewfinder(stream);
  return new Promise((resolve) => {
    const shoot = () => {
      const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob((blob) => resolve(new File([blob], "photo.jpg", { type: "image/jpeg" })), "image/jpeg", 0.92);
    };
    controls(host, t("record.shoot"), shoot, () => resolve(null), video);
  });
}

function recording(family, stream, host) {
  const mimeType = TYPES[family].find((type) => MediaRecorder.isTypeSupported(type));
  const recorder = new MediaRecorder(stream, mimeType ? { mimeType } : {});
  const pieces = [];
  const clock = element("span", { class: "clock" }, t("record.running", { seconds: 0 }));
  const began = Date.now();
  let isCancelled = false;

  return new Promise((resolve) => {
    const stop = () => { if (recorder.state !== "inactive") recorder.stop(); };
    const timer = setInterval(() => {
      const seconds = Math.floor((Date.now() - began) / 1000);
      clock.textContent = t("record.running", { seconds });
      if (seconds >= MOST_SECONDS) stop();
    }, 250);
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = () => {
      clearInterval(timer);
      const type = recorder.mimeType.split(";")[0];
      const file = new File(pieces, `recording.${type.split("/")[1]}`, { type });
      resolve(isCancelled ? null : file);
    };
    const cancel = () => { isCancelled = true; stop(); };
    const shown = family === "video" ? [viewfinder(stream), clock] : [clock];
    controls(host, t("record.stop"), stop, cancel, ...shown);
    recorder.start();
  });
}
