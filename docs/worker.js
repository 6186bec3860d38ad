// The search of the site runs in a worker, which browsers refuse to pages opened as files: for
// those, a hidden frame stands in for it. Messages go to the frame once its script is loaded.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      addEventListener("message", (event) => {
        if (event.source !== inside) return;
        this.dispatchEvent(new MessageEvent("message", { data: event.data }));
        if (this.onmessage) this.onmessage(event);
      });
      inside.postMessage = (data) => window.dispatchEvent(
        new MessageEvent("message", { data, source: inside }));
      const script = inside.document.createElement("script");
      script.src = url;
      this.ready = new Promise((done, fail) => {
        script.onload = done;
        script.onerror = () => {
          fail(new Error(url));
          if (this.onerror) this.onerror(new ErrorEvent("error"));
        };
      });
      inside.document.body.append(script);
    }
    postMessage(data) {
      const inside = this.frame.contentWindow;
      this.ready.then(() => inside.dispatchEvent(
        new inside.MessageEvent("message", { data, source: window })));
    }
    terminate() { this.frame.remove(); }
  };
  window.Worker = window.IFrameWorker;
}
