"use strict";
(() => {
  const element = (name, attributes = {}, ...inside) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...inside);
    return made;
  };
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // ---- copying ----

  // A file that is opened from a folder may not be trusted with the clipboard: then by a selection.
  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = element("textarea", { readonly: "" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const words = button.textContent;
      await copied(document.getElementById(button.dataset.copy).textContent.trim());
      button.textContent = "copied";
      setTimeout(() => { button.textContent = words; }, 1200);
    });
  }

  // ---- the picture's bytes ----

  // Read by ourselves: some browsers change what a canvas gives back.
  const codesOf = async (address) => {
    const bytes = Uint8Array.from(atob(address.slice(address.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const parts = {};
    for (let at = 8; at < bytes.length; at += 12 + view.getUint32(at)) {
      const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
      parts[name] = bytes.subarray(at + 8, at + 8 + view.getUint32(at));
    }
    const stream = new Blob([parts.IDAT]).stream().pipeThrough(new DecompressionStream("deflate"));
    const data = new Uint8Array(await new Response(stream).arrayBuffer());
    const [width, height] = [view.getUint32(16), view.getUint32(20)];
    const codes = new Uint8Array(width * height);
    for (let row = 0; row < height; row += 1) {
      const filter = data[row * (width + 1)];
      for (let i = 0; i < width; i += 1) {
        const at = row * width + i;
        const before = filter === 1 && i ? codes[at - 1] : filter === 2 && row ? codes[at - width] : 0;
        codes[at] = data[row * (width + 1) + 1 + i] + before;
      }
    }
    return { width, height, codes, colors: parts.PLTE, opacity: parts.tRNS };
  };
  const painted = ({ width, height, codes, colors, opacity }) => {
    const canvas = element("canvas", { width, height });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    codes.forEach((code, i) => {
      image.data.set(colors.subarray(3 * code, 3 * code + 3), 4 * i);
      image.data[4 * i + 3] = opacity[code];
    });
    context.putImageData(image, 0, 0);
    return canvas;
  };

  // ---- numbers ----

  // As many digits as a level of the picture is worth: three where the first of them is 1.
  const digits = (value) => {
    const more = value.toExponential(1)[0] === "1" ? 3 : 2;
    return value >= 1e-3 && value < 1e4 ? String(Number(value.toPrecision(more))) : value.toExponential(more - 1);
  };
  const short = (value) => (value >= 1e-2 && value < 1e4 ? String(Number(value.toPrecision(2))) : value.toExponential(0));

  // A canvas as sharp as the screen, in units of the page.
  const prepared = (canvas, height) => {
    const width = canvas.clientWidth || canvas.parentElement.clientWidth;
    const ratio = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "12px system-ui, sans-serif";
    return [context, width];
  };
  const stepsOf = (low, high, most) => {
    const rough = Math.max(1, (high - low) / most);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max(1, [1, 2, 5, 10].map((size) => size * power).find((size) => size >= rough));
    const found = [];
    for (let value = Math.ceil(low / step) * step; value < high; value += step) found.push(value);
    return found;
  };

  // ---- the explorer ----

  class Explorer {
    constructor(figure, about, picture) {
      Object.assign(this, about, picture);
      this.source = painted(picture);
      this.still = figure.querySelector(".still");
      this.whole();
      [this.row, this.column] = [this.height - 1, this.width >> 1];
      this.build(figure);
      this.fromAddress();
      this.listen();
      this.draw();
    }

    whole() {
      Object.assign(this, { left: 0, top: 0, across: this.width, down: this.height });
    }

    build(figure) {
      this.field = element("canvas", { class: "field", tabindex: "0", role: "application", "aria-label": this.help });
      this.overRow = element("canvas", { "aria-hidden": "true" });
      this.overColumn = element("canvas", { "aria-hidden": "true" });
      [this.rowTitle, this.columnTitle] = [element("h4"), element("h4")];
      this.said = element("output", { class: "said", "aria-live": "polite" });
      const tools = element("div", { class: "tools" });
      for (const [words, label, act] of [
        ["+", "zoom in", () => this.zoom(0.5)],
        ["−", "zoom out", () => this.zoom(2)],
        ["all", "show all of it", () => this.whole()],
      ]) {
        const button = element("button", { type: "button", "aria-label": label, title: label }, words);
        button.addEventListener("click", () => { act(); this.draw(); });
        tools.append(button);
      }
      const side = element("div", { class: "side" }, this.said, this.rowTitle, this.overRow, this.columnTitle, this.overColumn);
      const hint = element("p", { class: "hint" }, this.hint);
      this.still.before(element("div", { class: "explorer" }, element("div", {}, tools, this.field, hint), side));
      this.still.hidden = true;
    }

    // "#k=40&t=12" opens the page at that cell.
    fromAddress() {
      const asked = new URLSearchParams(location.hash.slice(1));
      const number = Number(asked.get(this.rows[0]));
      const row = this.labels ? this.labels.indexOf(number) : number;
      if (asked.has(this.rows[0]) && row >= 0) this.row = clamp(Math.floor(row / this.block), 0, this.height - 1);
      if (asked.has(this.columns[0])) {
        this.column = clamp(Math.floor((Number(asked.get(this.columns[0])) || 0) / this.block), 0, this.width - 1);
      }
    }

    listen() {
      const { field } = this;
      field.addEventListener("pointermove", (event) => this.moved(event));
      field.addEventListener("pointerdown", (event) => {
        // Only a mouse drags: a finger scrolls the page, and a tap points.
        this.drag = event.pointerType === "mouse" ? { x: event.offsetX, y: event.offsetY, far: false } : null;
        this.moved(event);
      });
      window.addEventListener("pointerup", (event) => {
        if (event.target === field && !(this.drag && this.drag.far)) {
          history.replaceState(null, "", `#${this.rows[0]}=${this.rowLabel(this.row)}&${this.columns[0]}=${this.column * this.block}`);
        }
        this.drag = null;
      });
      field.addEventListener("dblclick", () => { this.zoom(0.5); this.draw(); });
      field.addEventListener("wheel", (event) => {
        // Until it is chosen, the wheel belongs to the page.
        if (document.activeElement !== field) return;
        event.preventDefault();
        this.zoom(event.deltaY < 0 ? 0.8 : 1.25);
        this.draw();
      }, { passive: false });
      field.addEventListener("keydown", (event) => this.pressed(event));
      window.addEventListener("hashchange", () => { this.fromAddress(); this.draw(); });
      new ResizeObserver(() => this.draw()).observe(field.parentElement);
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    }

    moved(event) {
      const { x, y, w, h } = this.frame;
      if (this.drag && event.buttons === 1) {
        const [dx, dy] = [event.offsetX - this.drag.x, event.offsetY - this.drag.y];
        if (this.drag.far || Math.hypot(dx, dy) > 4) {
          this.pan((-dx / w) * this.across, (-dy / h) * this.down);
          this.drag = { x: event.offsetX, y: event.offsetY, far: true };
        }
      }
      if (event.offsetX < x || event.offsetX >= x + w || event.offsetY < y || event.offsetY >= y + h) return;
      this.column = clamp(Math.floor(this.left + ((event.offsetX - x) / w) * this.across), 0, this.width - 1);
      this.row = clamp(Math.floor(this.top + ((event.offsetY - y) / h) * this.down), 0, this.height - 1);
      this.draw();
    }

    pressed(event) {
      const far = event.shiftKey ? 10 : 1;
      const by = { ArrowLeft: [0, -far], ArrowRight: [0, far], ArrowUp: [-far, 0], ArrowDown: [far, 0] }[event.key];
      if (by) {
        this.row = clamp(this.row + by[0], 0, this.height - 1);
        this.column = clamp(this.column + by[1], 0, this.width - 1);
        this.follow();
      } else if (event.key === "+" || event.key === "=") this.zoom(0.5);
      else if (event.key === "-") this.zoom(2);
      else if (event.key === "0" || event.key === "Escape") this.whole();
      else return;
      event.preventDefault();
      this.draw();
    }

    // The crosshair keeps its place in the frame.
    zoom(factor) {
      const [x, y] = [(this.column + 0.5 - this.left) / this.across, (this.row + 0.5 - this.top) / this.down];
      this.across = clamp(this.across * factor, Math.min(8, this.width), this.width);
      this.down = clamp(this.down * factor, Math.min(8, this.height), this.height);
      [this.left, this.top] = [this.column + 0.5 - x * this.across, this.row + 0.5 - y * this.down];
      this.pan(0, 0);
      this.follow();
    }

    pan(across, down) {
      this.left = clamp(this.left + across, 0, this.width - this.across);
      this.top = clamp(this.top + down, 0, this.height - this.down);
    }

    follow() {
      this.left = clamp(this.left, Math.max(0, this.column + 1 - this.across), this.column);
      this.top = clamp(this.top, Math.max(0, this.row + 1 - this.down), this.row);
    }

    rowLabel(row) {
      return this.labels ? this.labels[row * this.block] : row * this.block;
    }

    // Whether it is smaller than the scale goes, or may be.
    isLess(row, column) {
      return this.clipped && this.codes[row * this.width + column] === 2;
    }

    // The value of a cell; null where it is none that a curve could show.
    value(row, column) {
      const level = this.codes[row * this.width + column] - 2;
      return level < 0 || this.isLess(row, column) || level >= this.levels ? null : this.low * (this.high / this.low) ** (level / (this.levels - 1));
    }

    words(row, column) {
      const code = this.codes[row * this.width + column];
      if (code === 0) return this.beyond;
      if (code === 1) return "0";
      if (code === 254) return "not a number";
      if (code === 255) return "infinite";
      if (this.isLess(row, column)) return `${digits(this.low)} or less`;
      return `about ${digits(this.value(row, column))} (within ${Math.ceil(100 * this.precision)} %)`;
    }

    draw() {
      this.drawField();
      const [k, t] = [this.rowLabel(this.row), this.column * this.block];
      this.said.textContent = `${this.rows[0]} ${k}, ${this.columns[0]} ${t}: ${this.words(this.row, this.column)}`;
      const row = Array.from({ length: this.width }, (_, i) => this.value(this.row, i));
      const column = Array.from({ length: this.height }, (_, i) => this.value(i, this.column));
      // At the foot of the scale a curve would read as if the values fell no further.
      const ends = (less) => (less ? ` (not drawn where it is ${digits(this.low)} or less)` : "");
      const inRow = ends(row.some((_, i) => this.isLess(this.row, i)));
      const inColumn = ends(column.some((_, i) => this.isLess(i, this.column)));
      this.rowTitle.textContent = `the row of ${this.rows[0]} ${k}, over ${this.columns[1]}${inRow}`;
      this.columnTitle.textContent = `the column of ${this.columns[0]} ${t}, over ${this.rows[1]}${inColumn}`;
      this.drawCurve(this.overRow, row, this.column, (i) => i * this.block);
      this.drawCurve(this.overColumn, column, this.row, (i) => this.rowLabel(i));
    }

    drawField() {
      const wide = this.field.clientWidth || this.field.parentElement.clientWidth;
      const [x, y] = [54, 8];
      const w = wide - x - 10;
      const h = this.square ? w : clamp(this.height * 6, 160, 420);
      this.frame = { x, y, w, h };
      const [context] = prepared(this.field, h + y + 38);
      context.fillStyle = color("--blank");
      context.fillRect(x, y, w, h);
      context.imageSmoothingEnabled = this.across > w;
      context.imageSmoothingQuality = "high";
      context.drawImage(this.source, this.left, this.top, this.across, this.down, x, y, w, h);
      this.drawAxes(context);
      this.drawCross(context);
    }

    drawAxes(context) {
      const { x, y, w, h } = this.frame;
      context.fillStyle = color("--faint");
      context.textAlign = "center";
      for (const i of stepsOf(this.left, this.left + this.across, w / 70)) {
        context.fillText(i * this.block, x + ((i + 0.5 - this.left) / this.across) * w, y + h + 15);
      }
      context.fillText(this.columns[1], x + w / 2, y + h + 32);
      context.textAlign = "right";
      for (const i of stepsOf(this.top, this.top + this.down, h / 40)) {
        context.fillText(this.rowLabel(i), x - 6, y + ((i + 0.5 - this.top) / this.down) * h + 4);
      }
      context.save();
      context.translate(11, y + h / 2);
      context.rotate(-Math.PI / 2);
      context.textAlign = "center";
      context.fillText(this.rows[1], 0, 0);
      context.restore();
    }

    drawCross(context) {
      const { x, y, w, h } = this.frame;
      const [cell, line] = [w / this.across, h / this.down];
      const [cx, cy] = [x + (this.column - this.left) * cell, y + (this.row - this.top) * line];
      context.save();
      context.beginPath();
      context.rect(x, y, w, h);
      context.clip();
      // A light line within a dark one shows on every colour.
      for (const [style, width] of [["rgba(0,0,0,.55)", 3], ["rgba(255,255,255,.9)", 1]]) {
        [context.strokeStyle, context.lineWidth] = [style, width];
        context.beginPath();
        context.moveTo(x, cy + line / 2);
        context.lineTo(x + w, cy + line / 2);
        context.moveTo(cx + cell / 2, y);
        context.lineTo(cx + cell / 2, y + h);
        context.rect(cx - 1, cy - 1, Math.max(cell, 5) + 2, Math.max(line, 5) + 2);
        context.stroke();
      }
      context.restore();
    }

    drawCurve(canvas, values, chosen, label) {
      const [context, wide] = prepared(canvas, 150);
      const [x, y, w, h] = [54, 8, wide - 64, 118];
      const up = (value) => y + h - (Math.log(value / this.low) / Math.log(this.high / this.low)) * h;
      const along = (i) => x + ((i + 0.5) / values.length) * w;
      context.strokeStyle = color("--rule");
      context.strokeRect(x, y, w, h);
      context.fillStyle = color("--faint");
      context.textAlign = "right";
      for (const value of [this.low, Math.sqrt(this.low) * Math.sqrt(this.high), this.high]) {
        context.fillText(short(value), x - 6, clamp(up(value) + 4, y + 8, y + h));
      }
      context.textAlign = "center";
      for (const i of stepsOf(0, values.length, w / 60)) context.fillText(label(i), along(i), y + h + 17);
      [context.strokeStyle, context.lineWidth] = [color("--faint"), 1];
      context.beginPath();
      context.moveTo(along(chosen), y);
      context.lineTo(along(chosen), y + h);
      context.stroke();
      [context.strokeStyle, context.fillStyle, context.lineWidth] = [color("--c0"), color("--c1"), 1.8];
      context.beginPath();
      values.forEach((value, i) => {
        if (value === null) return;
        if (i && values[i - 1] !== null) context.lineTo(along(i), up(value));
        else context.moveTo(along(i) - 0.7, up(value)), context.lineTo(along(i) + 0.7, up(value));
      });
      context.stroke();
      if (values[chosen] !== null) {
        context.beginPath();
        context.arc(along(chosen), up(values[chosen]), 4, 0, 2 * Math.PI);
        context.fill();
      }
    }
  }

  for (const figure of document.querySelectorAll("figure.matrix")) {
    const about = JSON.parse(figure.querySelector("script").textContent);
    codesOf(figure.querySelector(".static").src).then((picture) => new Explorer(figure, about, picture));
  }
})();
