// One plane on the screen: voxels one pixel each, scaled by CSS to millimetres; marks above them.

export const COLOURS = [
  [255, 92, 92], [88, 183, 255], [120, 220, 120], [255, 196, 84], [200, 130, 255], [80, 220, 210],
  [255, 140, 60], [255, 130, 190], [170, 200, 80], [140, 150, 255], [230, 220, 130], [120, 190, 160],
];

export function colourOf(value) {
  return COLOURS[(((value - 1) % COLOURS.length) + COLOURS.length) % COLOURS.length];
}

export class PlaneBox {
  constructor(view, parent) {
    this.element = document.createElement("div");
    this.element.className = "plane";
    this.element.dataset.name = view.name;
    this.title = document.createElement("div");
    this.title.className = "title";
    this.image = document.createElement("canvas");
    this.image.className = "image";
    this.labels = document.createElement("canvas");
    this.labels.className = "labels";
    this.marks = document.createElement("canvas");
    this.marks.className = "marks";
    this.element.append(this.image, this.labels, this.marks, this.title);
    parent.append(this.element);
    [this.scale, this.pan] = [1, [0, 0]];
    this.use(view, [1, 1, 1]);
  }

  // Show another volume, whose plane of this name is `view`.
  use(view, shape) {
    this.view = view;
    this.shape = shape;
    this.element.dataset.axis = view.axis;
    for (const canvas of [this.image, this.labels]) {
      canvas.width = shape[view.across];
      canvas.height = shape[view.down];
    }
    this.layOut();
  }

  // Fit the plane into its box with its true proportions.
  layOut() {
    const { clientWidth: w, clientHeight: h } = this.element;
    const [width, height] = this.view.size_mm;
    const scale = this.scale * Math.min((w - 44) / width, (h - 44) / height);
    this.rect = { width: width * scale, height: height * scale };
    this.rect.left = (w - this.rect.width) / 2 + this.pan[0];
    this.rect.top = (h - this.rect.height) / 2 + this.pan[1];
    for (const canvas of [this.image, this.labels]) {
      canvas.style.left = `${this.rect.left}px`;
      canvas.style.top = `${this.rect.top}px`;
      canvas.style.width = `${this.rect.width}px`;
      canvas.style.height = `${this.rect.height}px`;
    }
  }

  // Enlarge by a factor, keeping what lies at (x, y) of the box; 0 shows all of the plane again.
  zoomBy(factor, x, y) {
    const before = this.rect;
    const shares = [(x - before.left) / before.width, (y - before.top) / before.height];
    this.scale = factor ? Math.min(32, Math.max(1, this.scale * factor)) : 1;
    this.pan = [0, 0];
    this.layOut();
    if (this.scale > 1) {
      const { left, top, width, height } = this.rect;
      this.pan = [x - shares[0] * width - left, y - shares[1] * height - top];
      this.layOut();
    }
  }

  // Where the voxel of each pixel lies in the data: its two axes are in the order of the volume's.
  *rows(shape) {
    const { across, down, flip_across: flipX, flip_down: flipY } = this.view;
    const [stepX, stepY] = across < down ? [shape[1], 1] : [1, shape[1]];
    const [width, height] = [this.image.width, this.image.height];
    for (let y = 0; y < height; y++) {
      const row = (flipY ? height - 1 - y : y) * stepY;
      yield { start: row + (flipX ? (width - 1) * stepX : 0), step: flipX ? -stepX : stepX, y };
    }
  }

  paint({ data, shape }, low, high) {
    const pixels = new ImageData(this.image.width, this.image.height);
    const words = new Uint32Array(pixels.data.buffer);
    const scale = 255 / Math.max(high - low, 1e-12);
    for (const { start, step, y } of this.rows(shape)) {
      let at = start;
      for (let x = y * this.image.width; x < (y + 1) * this.image.width; x++, at += step) {
        const gray = (data[at] - low) * scale;
        const byte = gray > 0 ? (gray < 255 ? (gray + 0.5) | 0 : 255) : 0; // NaN is black
        words[x] = 0xff000000 | (byte << 16) | (byte << 8) | byte;
      }
    }
    this.image.getContext("2d").putImageData(pixels, 0, 0);
  }

  paintLabels(plane, opacity) {
    const context = this.labels.getContext("2d");
    context.clearRect(0, 0, this.labels.width, this.labels.height);
    const seen = new Set();
    if (!plane) return seen;
    const pixels = new ImageData(this.labels.width, this.labels.height);
    const words = new Uint32Array(pixels.data.buffer);
    const alpha = Math.round(opacity * 255);
    for (const { start, step, y } of this.rows(plane.shape)) {
      let at = start;
      for (let x = y * this.labels.width; x < (y + 1) * this.labels.width; x++, at += step) {
        const value = plane.data[at];
        if (value === 0) continue;
        seen.add(value);
        const [r, g, b] = colourOf(value);
        words[x] = ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
      }
    }
    context.putImageData(pixels, 0, 0);
    return seen;
  }

  // Position on the screen of an edge between voxels: 0 is before the first, n after the last.
  edge(axis, at) {
    const { across, flip_across: flipX, flip_down: flipY } = this.view;
    const share = at / this.shape[axis];
    if (axis === across) return this.rect.left + (flipX ? 1 - share : share) * this.rect.width;
    return this.rect.top + (flipY ? 1 - share : share) * this.rect.height;
  }

  // The voxel below a mouse event, or the nearest one of the plane.
  voxelAt(event, cursor) {
    const box = this.element.getBoundingClientRect();
    const place = [...cursor];
    const share = (at, start, size, flip) => {
      const part = (at - start) / size;
      return flip ? 1 - part : part;
    };
    const { across, down, flip_across: flipX, flip_down: flipY } = this.view;
    const shares = [
      [across, share(event.clientX - box.left, this.rect.left, this.rect.width, flipX)],
      [down, share(event.clientY - box.top, this.rect.top, this.rect.height, flipY)],
    ];
    for (const [axis, part] of shares) {
      const last = this.shape[axis] - 1;
      place[axis] = Math.min(last, Math.max(0, Math.floor(part * this.shape[axis])));
    }
    return place;
  }

  drawMarks({ cursor, crosshair, tiles }) {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: w, clientHeight: h } = this.element;
    this.marks.width = Math.round(w * ratio);
    this.marks.height = Math.round(h * ratio);
    const pen = this.marks.getContext("2d");
    pen.scale(ratio, ratio);
    const { view } = this;
    if (tiles) this.drawTiles(pen, tiles, cursor[view.axis]);
    if (crosshair) {
      const x = this.edge(view.across, cursor[view.across] + 0.5);
      const y = this.edge(view.down, cursor[view.down] + 0.5);
      const { left, top, width, height } = this.rect;
      pen.strokeStyle = "rgba(88, 183, 255, 0.65)";
      pen.lineWidth = 1;
      pen.beginPath();
      for (const [a, b, c, d] of [
        [left, y, x - 8, y], [x + 8, y, left + width, y],
        [x, top, x, y - 8], [x, y + 8, x, top + height],
      ]) {
        pen.moveTo(a, b);
        pen.lineTo(c, d);
      }
      pen.stroke();
    }
    this.drawLetters(pen);
  }

  drawLetters(pen) {
    const { left, top, width, height } = this.rect;
    pen.fillStyle = "#ffb454";
    pen.font = "600 13px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const { letters } = this.view;
    const { clientWidth: w, clientHeight: h } = this.element;
    // A zoomed plane leaves its box: its letters stay inside.
    const inside = (at, size) => Math.min(size - 10, Math.max(10, at));
    const [middle, centre] = [inside(left + width / 2, w), inside(top + height / 2, h)];
    pen.fillText(letters.left, inside(left - 12, w), centre);
    pen.fillText(letters.right, inside(left + width + 12, w), centre);
    pen.fillText(letters.top, middle, inside(top - 11, h));
    pen.fillText(letters.bottom, middle, inside(top + height + 11, h));
  }

  rectangle({ start, stop }) {
    const xs = [start, stop].map((at) => this.edge(this.view.across, at[this.view.across]));
    const ys = [start, stop].map((at) => this.edge(this.view.down, at[this.view.down]));
    return [Math.min(...xs), Math.min(...ys), Math.abs(xs[1] - xs[0]), Math.abs(ys[1] - ys[0])];
  }

  drawTiles(pen, patch, index) {
    const crosses = ({ start, stop }) => start[this.view.axis] <= index && index < stop[this.view.axis];
    pen.lineWidth = 1;
    for (const tile of patch.tiles.filter(crosses)) {
      const box = this.rectangle(tile);
      pen.fillStyle = tile.constant ? "rgba(133, 146, 160, 0.10)" : "rgba(255, 180, 84, 0.13)";
      pen.fillRect(...box);
      pen.strokeStyle = tile.constant ? "rgba(133, 146, 160, 0.45)" : "rgba(255, 180, 84, 0.7)";
      pen.strokeRect(...box);
    }
    if (crosses(patch)) {
      pen.lineWidth = 2;
      pen.strokeStyle = "#ffffff";
      pen.strokeRect(...this.rectangle(patch));
    }
  }
}
