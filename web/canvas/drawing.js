/**
 * The value of Make Cast's canvas, and how it changes. Values are never modified: a change returns a new one.
 *
 * @typedef {[number, number]} Point fractions of the picture
 * @typedef {{name: string, head: [number, number, number, number], pose: (Point | null)[]}} Person
 *   head: x, y, width and height, fractions of the picture. pose: OpenPose's 18 keypoints, empty without a body.
 * @typedef {{people: Person[]}} Drawing
 * @typedef {{width: number, height: number}} Size of the picture in pixels
 */

/** OpenPose's limbs as pairs of keypoints; right and left are the person's own. */
export const LIMBS = [
  [1, 2], [1, 5], [2, 3], [3, 4], [5, 6], [6, 7], [1, 8], [8, 9], [9, 10],
  [1, 11], [11, 12], [12, 13], [1, 0], [0, 14], [14, 16], [0, 15], [15, 17],
];

/**
 * A person who stands upright and faces the viewer: keypoints from the centre of the face, in distances between the
 * eyes. A face detector's box of that face is 2.1 wide and 2.7 high.
 * @type {Point[]}
 */
const STANDING = [
  [0, 0.25], [0, 3.1], [-2.8, 3.2], [-3.5, 7.8], [-3.7, 11.8], [2.8, 3.2], [3.5, 7.8], [3.7, 11.8], [-1.7, 11.2],
  [-1.8, 17.6], [-1.9, 23.8], [1.7, 11.2], [1.8, 17.6], [1.9, 23.8], [-0.5, -0.35], [0.5, -0.35], [-1.1, 0.1], [1.1, 0.1],
];
const FACE_WIDTH = 2.1;

/** @type {Drawing} */
export const EMPTY = { people: [] };

/**
 * Reads a saved value.
 * @param {unknown} value
 * @returns {Drawing}
 */
export function asDrawing(value) {
  const people = /** @type {Partial<Drawing> | null} */ (value)?.people;
  return Array.isArray(people) ? { people } : EMPTY;
}

/**
 * The body that stands beneath a head.
 * @param {Person["head"]} head
 * @param {Size} size
 * @returns {Point[]}
 */
export function standingBody([x, y, width, height], size) {
  const unit = (width * size.width) / FACE_WIDTH;
  return STANDING.map(([right, down]) => [
    round(x + width / 2 + (right * unit) / size.width),
    round(y + height / 2 + (down * unit) / size.height),
  ]);
}

/**
 * @param {Drawing} drawing
 * @param {number} index
 * @param {Partial<Person>} change
 * @returns {Drawing}
 */
export function withPerson(drawing, index, change) {
  return { people: drawing.people.map((person, i) => (i === index ? { ...person, ...change } : person)) };
}

/**
 * Moves or resizes a head; its body goes with it.
 * @param {Person} person
 * @param {Person["head"]} head
 * @returns {Person}
 */
export function withHead(person, head) {
  const [x, y, width, height] = person.head;
  const pose = person.pose.map((point) => /** @type {Point | null} */ (
    point && [
      round(head[0] + ((point[0] - x) * head[2]) / width),
      round(head[1] + ((point[1] - y) * head[3]) / height),
    ]
  ));
  return { ...person, head, pose };
}

/**
 * The box between two corners, inside the picture.
 * @param {Point} from
 * @param {Point} to
 * @returns {Person["head"]}
 */
export function boxBetween(from, to) {
  const [left, right] = [from[0], to[0]].map(inside).sort((a, b) => a - b);
  const [top, bottom] = [from[1], to[1]].map(inside).sort((a, b) => a - b);
  return [left, top, round(right - left), round(bottom - top)];
}

/**
 * The box moved by an offset, inside the picture.
 * @param {Person["head"]} head
 * @param {Point} offset
 * @returns {Person["head"]}
 */
export function movedBox([x, y, width, height], offset) {
  const keep = (/** @type {number} */ at, /** @type {number} */ length) => round(Math.min(Math.max(at, 0), 1 - length));
  return [keep(x + offset[0], width), keep(y + offset[1], height), width, height];
}

/** @param {number} fraction */
export function inside(fraction) {
  return round(Math.min(Math.max(fraction, 0), 1));
}

/** @param {number} fraction to a ten-thousandth of the picture, which is less than a pixel */
export function round(fraction) {
  return Math.round(fraction * 1e4) / 1e4;
}
