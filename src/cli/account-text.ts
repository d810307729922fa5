/** The tables of `kindling account`; the rows have the names of its JSON output. */
import type { Account } from '../account'
import { toSnakeCase } from '../case'
import { count, duration, gibibytes, percent, short } from '../format'
import { table } from './table'

/** What the tables describe. */
export interface AccountTitle {
  name: string
  memoryGib: number
  steps: number
}

const FLOPS = ['attention_projections', 'attention_scores', 'feed_forward', 'output'] as const
const MEMORY = ['parameters', 'gradients', 'optimizer', 'activations', 'total'] as const
const SECONDS_PER_DAY = 86_400

/** Returns the tables of one model. */
export function accountText(result: Account, title: AccountTitle): string {
  return [
    `${title.name}: ${result.params.total.toLocaleString('en')} parameters`,
    '',
    parametersTable(result),
    '',
    flopsTable(result),
    '',
    memoryTable(result, title.memoryGib),
    '',
    ...timeLines(result, title.steps),
  ].join('\n')
}

function parametersTable({ params }: Account): string {
  const rows = Object.entries(toSnakeCase(params)).map(([name, n]) => [
    name,
    count(n),
    percent(n / params.total),
  ])
  return table(['parameters', '>', '>share'], rows)
}

function flopsTable(result: Account): string {
  const flops = toSnakeCase(result.flops)
  const part = (name: string, n: number): string[] => [name, short(n), percent(n / flops.forward)]
  return table(
    ['FLOPs', '>', '>share'],
    [
      ...FLOPS.map((name) => part(name, flops[name])),
      part('forward, a sequence', flops.forward),
      ['backward, a sequence', short(flops.backward)],
      ['optimizer', short(flops.optimizer)],
      ['step, batch and optimizer', short(flops.step)],
      ['per token (causal)', short(flops.per_token)],
    ],
  )
}

function memoryTable(result: Account, memoryGib: number): string {
  const { memory, courseMemory, largestBatch, courseLargestBatch } = result
  const rows = MEMORY.map((name) => [
    name,
    inGib(memory[name]),
    percent(memory[name] / memory.total),
    inGib(courseMemory[name]),
    percent(courseMemory[name] / courseMemory.total),
  ])
  const perSequence = [memory, courseMemory].map((m) => inGib(m.activationsPerSequence))
  return table(
    ['memory', '>this engine', '>share', ">course's formula", '>share'],
    [
      ...rows,
      ['one sequence more', perSequence[0]!, '', perSequence[1]!],
      [`largest batch in ${memoryGib} GiB`, whole(largestBatch), '', whole(courseLargestBatch)],
    ],
  )
}

function timeLines(result: Account, steps: number): string[] {
  const { mfu, tokensPerSecond, trainingSeconds } = result
  const days = `${(trainingSeconds / SECONDS_PER_DAY).toFixed(1)} days`
  return [
    `${whole(steps)} steps take ${duration(trainingSeconds)} (${days})`,
    `at ${short(tokensPerSecond)} tokens/s, an MFU of ${percent(mfu)}`,
  ]
}

function inGib(bytes: number): string {
  return `${gibibytes(bytes, 3)} GiB`
}

function whole(n: number): string {
  return n.toLocaleString('en')
}

/** A model in the course's comparison. */
export interface CourseColumn {
  name: string
  context: number
  result: Account
}

/** Returns the course's comparison: shares of the FLOPs by component, a column per model. */
export function courseText(columns: readonly CourseColumn[]): string {
  const flopsOf = ({ result }: CourseColumn): Record<string, number> => toSnakeCase(result.flops)
  const row = (name: string, cell: (column: CourseColumn) => string): string[] => [
    name,
    ...columns.map(cell),
  ]
  const gib = (bytes: number): string => gibibytes(bytes, 2)
  return table(
    ['', ...columns.map(({ name }) => `>${name}`)],
    [
      row('context', ({ context }) => whole(context)),
      row('parameters', ({ result }) => count(result.params.total)),
      row('FLOPs, forward', ({ result }) => short(result.flops.forward)),
      ...FLOPS.map((name) =>
        row(`  ${name}`, (column) => percent(flopsOf(column)[name]! / column.result.flops.forward)),
      ),
      row('GiB without batch', ({ result }) =>
        gib(result.memory.total - result.memory.activations),
      ),
      row('GiB a sequence', ({ result }) => gib(result.memory.activationsPerSequence)),
      row("  course's formula", ({ result }) => gib(result.courseMemory.activationsPerSequence)),
      row('largest batch', ({ result }) => whole(result.largestBatch)),
      row("  course's formula", ({ result }) => whole(result.courseLargestBatch)),
    ],
  )
}
