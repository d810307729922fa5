/** Line charts as inline SVG. */
import type { Points } from '../runs/thin'
import { short } from '../format'
import { html, type Html } from './html'

/** A line of a chart. */
export interface Line {
  /** Index of the run's colour in the palette. */
  slot: number
  points: Points
  /** Drawn faint, behind the others. */
  isFaint?: boolean
  isDashed?: boolean
  /** Its points are marked. */
  hasMarks?: boolean
}

/** What a chart shows. */
export interface ChartOptions {
  title: string
  unit: string
  lines: readonly Line[]
  format: (value: number, digits: number) => string
  /** Makes the x axis logarithmic, with a tick at each value, labelled by this function. */
  formatX?: (value: number) => string
  /** Upper end of the y axis; lines are clipped to it. */
  cut?: number
}

const WIDTH = 560
const HEIGHT = 240
const LEFT = 58
const RIGHT = 14
const TOP = 10
const BOTTOM = 26
const TICKS = 5

interface Scale {
  ticks: number[]
  at: (value: number) => number
}

/** Draws a chart; null if there is nothing to draw. */
export function chart({ title, unit, format, formatX, cut, ...given }: ChartOptions): Html | null {
  const drawn = given.lines
    .filter(({ points }) => points.x.length > 0)
    .map((line) => (cut === undefined ? line : cutAt(line, cut)))
  if (drawn.length === 0) return null
  const xs = drawn.flatMap(({ points }) => points.x)
  const x = formatX ? logScale(xs) : scale(xs, [LEFT, WIDTH - RIGHT], false)
  const y = scale(
    drawn.flatMap(({ points }) => points.y),
    [HEIGHT - BOTTOM, TOP],
    true,
  )
  const ends = drawn
    .filter(({ isFaint }) => !isFaint)
    .map(({ points }) => `${format(points.y[0]!, 4)} to ${format(points.y.at(-1)!, 4)}`)
  return html`<figure class="card">
    <figcaption>${title} <small>${unit}</small></figcaption>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${title}: ${ends.join('; ')}">
      ${y.ticks.map((tick) => yTick(tick, y, format))}
      ${x.ticks.map((tick) => xTick(tick, x, formatX))} ${drawn.map((line) => path(line, x, y))}
    </svg>
  </figure>`
}

function yTick(value: number, y: Scale, format: ChartOptions['format']): Html {
  const at = y.at(value).toFixed(1)
  const text = format(value, digitsOf(y.ticks))
  return html`<path class="grid" d="M${LEFT} ${at}H${WIDTH - RIGHT}" />
    <text x="${LEFT - 8}" y="${at}" dy="4" text-anchor="end">${text}</text>`
}

function xTick(
  value: number,
  x: Scale,
  format: (value: number, digits: number) => string = short,
): Html {
  const at = x.at(value).toFixed(1)
  return html`<text x="${at}" y="${HEIGHT - 6}" text-anchor="middle"
    >${format(value, digitsOf(x.ticks))}</text
  >`
}

function cutAt(line: Line, cut: number): Line {
  const { x, y } = line.points
  return { ...line, points: { x, y: y.map((value) => Math.min(value, cut)) } }
}

function path({ points, slot, isFaint, isDashed, hasMarks }: Line, x: Scale, y: Scale): Html {
  const places = points.x.map(
    (value, i) => `${x.at(value).toFixed(1)} ${y.at(points.y[i]!).toFixed(1)}`,
  )
  const kind = `line run-${slot}${isFaint ? ' faint' : ''}${isDashed ? ' dashed' : ''}`
  // A path of one point shows as a dot, because its caps are round.
  const marks = hasMarks ? places.map((place) => `M${place}h0`).join('') : ''
  return html`<path class="${kind}" d="M${places.join('L')}${places.length === 1 ? 'h0' : ''}" />
    ${marks === '' ? null : html`<path class="line run-${slot} mark" d="${marks}" />`}`
}

/** Maps positive values to pixels by their logarithms; each distinct one is a tick. */
function logScale(values: readonly number[]): Scale {
  const ticks = [...new Set(values)].sort((a, b) => a - b)
  const [low, high] = [Math.log(ticks[0]!), Math.log(ticks.at(-1)!)]
  // A margin for the labels at both ends.
  const [start, end] = [LEFT + 24, WIDTH - RIGHT - 24]
  const at = (value: number): number =>
    high > low
      ? start + ((Math.log(value) - low) / (high - low)) * (end - start)
      : (start + end) / 2
  return { ticks, at }
}

/** Maps the range of the values to pixels, with round numbers as ticks. */
function scale(
  values: readonly number[],
  [start, end]: [number, number],
  isPadded: boolean,
): Scale {
  let low = Infinity
  let high = -Infinity
  for (const value of values) {
    low = Math.min(low, value)
    high = Math.max(high, value)
  }
  if (low === high) {
    const margin = Math.abs(low) / 10 || 1
    low -= margin
    high += margin
  }
  const step = roundStep((high - low) / TICKS)
  if (isPadded) {
    low = Math.floor(low / step) * step
    high = Math.ceil(high / step) * step
  }
  const ticks: number[] = []
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
    ticks.push(i * step)
  return { ticks, at: (value) => start + ((value - low) / (high - low)) * (end - start) }
}

/** Rounds a step up to 1, 2, 2.5 or 5 times a power of ten. */
function roundStep(step: number): number {
  const power = 10 ** Math.floor(Math.log10(step))
  return power * ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= step * (1 - 1e-9)) ?? 10)
}

/** Returns how many digits it takes to distinguish the ticks. */
function digitsOf(ticks: readonly number[]): number {
  const step = Math.abs((ticks[1] ?? 0) - (ticks[0] ?? 0))
  const greatest = Math.max(...ticks.map(Math.abs), 0)
  if (step === 0 || greatest === 0) return 3
  return Math.min(15, Math.max(3, Math.ceil(Math.log10(greatest / step)) + 1))
}
