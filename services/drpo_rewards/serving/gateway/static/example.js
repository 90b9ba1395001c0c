// Draws example pictures: six attempts at one prompt, of which one is right.

export const PROMPT = "a red circle left of a blue square";
export const METADATA = `{"include": [
  {"class": "circle", "color": "red"},
  {"class": "square", "color": "blue",
   "position": ["right of", 0]}
]}`;

const RED = "#d62628", BLUE = "#2458ce", GREEN = "#289c3e";
const SIDE = 256;

// Each attempt: a name, then shapes [kind, colour, x, y]; x and y are fractions of the picture's side.
const ATTEMPTS = [
  ["colours-swapped", ["circle", BLUE, 0.28, 0.5], ["square", RED, 0.72, 0.52]],
  ["no-square", ["circle", RED, 0.5, 0.48]],
  ["as-asked", ["circle", RED, 0.28, 0.52], ["square", BLUE, 0.73, 0.46]],
  ["wrong-side", ["square", BLUE, 0.28, 0.5], ["circle", RED, 0.72, 0.5]],
  ["green-square", ["circle", RED, 0.27, 0.5], ["square", GREEN, 0.72, 0.5]],
  ["two-triangles", ["triangle", RED, 0.28, 0.5], ["triangle", BLUE, 0.72, 0.5]],
];

/** Draws the pictures and returns them as PNG files. */
export function files() {
  return Promise.all(ATTEMPTS.map(async ([name, ...shapes]) => new File([await draw(shapes)], `${name}.png`, {type: "image/png"})));
}

function draw(shapes) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const brush = canvas.getContext("2d");
  const light = brush.createLinearGradient(0, 0, 0, SIDE);
  light.addColorStop(0, "#f1f1ee");
  light.addColorStop(1, "#e6e7ea");
  brush.fillStyle = light;
  brush.fillRect(0, 0, SIDE, SIDE);
  for (const [kind, color, x, y] of shapes) {
    const [middleX, middleY, radius] = [x * SIDE, y * SIDE, 0.17 * SIDE];
    brush.fillStyle = color;
    brush.beginPath();
    if (kind === "circle") brush.arc(middleX, middleY, radius, 0, 2 * Math.PI);
    if (kind === "square") brush.rect(middleX - 0.9 * radius, middleY - 0.9 * radius, 1.8 * radius, 1.8 * radius);
    if (kind === "triangle") {
      brush.moveTo(middleX, middleY - radius);
      brush.lineTo(middleX + radius, middleY + 0.8 * radius);
      brush.lineTo(middleX - radius, middleY + 0.8 * radius);
    }
    brush.fill();
  }
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
