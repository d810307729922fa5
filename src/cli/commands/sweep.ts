/** `kindling sweep`: compares learning rates, as a table with a bar chart. */
import { Command } from 'commander'
import { z } from 'zod'
import { parse } from '../../training/config'
import { inGroup, trainFields } from '../../training/fields'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { run } from '../output'
import { sweep, toySweep, type SweepResult, type ToyResult } from '../sweep'

// The flags of `kindling train`, without those that a sweep sets itself.
const {
  lr: _lr,
  max_steps: _steps,
  run: _run,
  resume: _resume,
  checkpoint: _checkpoint,
  stop_at_step: _stop,
  ...sharedFields
} = trainFields

const common = { common: true }

const ownFields = inGroup('Sweep', {
  lr: z
    .array(z.number().positive())
    .min(1)
    .optional()
    .describe('learning rates to compare')
    .meta(common),
  steps: z
    .int()
    .min(1)
    .optional()
    .describe('updates per run (default: 100; with --toy: 10)')
    .meta(common),
  toy: z
    .boolean()
    .default(false)
    .describe('minimize a 10 x 10 quadratic by SGD instead (default rates: 10, 100, 1000)')
    .meta(common),
})

const EXAMPLES = [
  'kindling sweep --toy',
  'kindling sweep --corpus book.txt --preset char --vocab-size 1000 --lr 1e-4 1e-3 1e-2 --steps 200',
]

const RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
const TOY_RATES = [1e1, 1e2, 1e3]

export function sweepCommand(): Command {
  const command = new Command('sweep').description('compare learning rates in short training runs')
  addFields(command, { ...ownFields, ...sharedFields }, { hideRest: true })
  addExamples(command, EXAMPLES)
  return command.action(
    run(async ({ lr, steps, toy, ...flags }, output) => {
      const options = parse(z.strictObject(ownFields), { lr, steps, toy })
      if (options.toy) {
        const results = toySweep(options.lr ?? TOY_RATES, options.steps ?? 10)
        for (const result of results) output.line(result)
        output.text(toyTable(results))
        return
      }
      const results = await withInterrupt((signal) =>
        sweep(
          options.lr ?? RATES,
          { ...flags, max_steps: options.steps ?? 100 },
          (result) => output.line(result),
          signal,
        ),
      )
      output.text(table(results))
    }),
  )
}

const MAX_BAR_WIDTH = 40

function table(results: readonly SweepResult[]): string {
  const losses = results.map((result) => result.valLoss ?? result.loss)
  const finite = losses.filter((loss) => loss !== null)
  const worst = Math.max(...finite)
  const best = Math.min(...finite)
  return [
    `${'lr'.padStart(9)} ${'loss'.padStart(9)} ${'val_loss'.padStart(9)}`,
    ...results.map(({ lr, loss, valLoss, diverged }, i) => {
      const final = losses[i] ?? null
      const bar = final === null ? '' : '█'.repeat(Math.round((MAX_BAR_WIDTH * final) / worst))
      const mark = diverged ? 'diverged' : final === best ? `${bar} best` : bar
      return `${lr.toExponential(0).padStart(9)} ${number(loss)} ${number(valLoss)} ${mark}`
    }),
  ].join('\n')
}

function number(value: number | null): string {
  return (value === null ? '-' : value.toFixed(4)).padStart(9)
}

function toyTable(results: readonly ToyResult[]): string {
  const rates = results.map(({ lr }) => `lr ${lr.toExponential(0)}`.padStart(14))
  const rows = results[0]!.losses.map((_, step) => {
    const losses = results.map((result) => result.losses[step]!.toExponential(4).padStart(14))
    return `${String(step).padStart(4)} ${losses.join('')}`
  })
  return [`step ${rates.join('')}`, ...rows].join('\n')
}
