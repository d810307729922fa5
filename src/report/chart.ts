/** Line charts as inline SVG. */
import type { Points } from '../runs/thin'
import { short } from '../format'
import { html, type Html } from './html'

/** A line of a chart. */
export interface Line {
  /** Place of the run's colour in the palette. */
  slot: number
  points: Points
  /** Drawn faint, behind the others. */
  isFaint?: boolean
  isDashed?: boolean
}

/** What a chart shows. */
export interface ChartOptions {
  title: string
  unit: string
  lines: readonly Line[]
  format: (value: number, digits: number) => string
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
export function chart({ title, unit, lines, format }: ChartOptions): Html | null {
  const drawn = lines.filter(({ points }) => points.x.length > 0)
  if (drawn.length === 0) return null
  const x = scale(
    drawn.flatMap(({ points }) => [points.x[0]!, points.x.at(-1)!]),
    [LEFT, WIDTH - RIGHT],
    false,
  )
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
      ${y.ticks.map((tick) => yTick(tick, y, format))} ${x.ticks.map((tick) => xTick(tick, x))}
      ${drawn.map((line) => path(line, x, y))}
    </svg>
  </figure>`
}

function yTick(value: number, y: Scale, format: ChartOptions['format']): Html {
  const at = y.at(value).toFixed(1)
  const text = format(value, digitsOf(y.ticks))
  return html`<path class="grid" d="M${LEFT} ${at}H${WIDTH - RIGHT}" />
    <text x="${LEFT - 8}" y="${at}" dy="4" text-anchor="end">${text}</text>`
}

function xTick(value: number, x: Scale): Html {
  const at = x.at(value).toFixed(1)
  return html`<text x="${at}" y="${HEIGHT - 6}" text-anchor="middle"
    >${short(value, digitsOf(x.ticks))}</text
  >`
}

function path({ points, slot, isFaint, isDashed }: Line, x: Scale, y: Scale): Html {
  const places = points.x.map(
    (value, i) => `${x.at(value).toFixed(1)} ${y.at(points.y[i]!).toFixed(1)}`,
  )
  const kind = `line line-${slot}${isFaint ? ' faint' : ''}${isDashed ? ' dashed' : ''}`
  // A path of one point is a dot, by its round caps.
  return html`<path class="${kind}" d="M${places.join('L')}${places.length === 1 ? 'h0' : ''}" />`
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

/** The next greater of 1, 2, 2.5 and 5 times a power of ten. */
function roundStep(step: number): number {
  const power = 10 ** Math.floor(Math.log10(step))
  return power * ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= step * (1 - 1e-9)) ?? 10)
}

/** Digits that tell the ticks apart. */
function digitsOf(ticks: readonly number[]): number {
  const step = Math.abs((ticks[1] ?? 0) - (ticks[0] ?? 0))
  const greatest = Math.max(...ticks.map(Math.abs), 0)
  if (step === 0 || greatest === 0) return 3
  return Math.min(15, Math.max(3, Math.ceil(Math.log10(greatest / step)) + 1))
}
