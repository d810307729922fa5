/** `kindling sweep`: compares learning rates, as a plot, a table and an HTML file. */
import { join } from 'node:path'
import { Command } from 'commander'
import { z } from 'zod'
import { learningRate } from '../../format'
import { writeSweepReport } from '../../report'
import { sweepOf, type SweepResult, type SweepSummary } from '../../sweep'
import { toySweep } from '../../sweep/toy'
import { parse, type GivenOptions } from '../../training/config'
import { inGroup, trainFields } from '../../training/fields'
import { RunFolder } from '../../training/run-folder'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { preparationReport } from '../logger'
import { run, type Output } from '../output'
import { StepProgress } from '../progress'
import { sweepText, toyText } from '../sweep-text'
import { outliveOutput } from '../streams'
import { columnsOf } from '../terminal'

// The flags of `kindling train`, without those that a sweep sets itself.
const {
  lr: _lr,
  max_steps: _steps,
  run: _run,
  resume: _resume,
  checkpoint: _checkpoint,
  stop_at_step: _stop,
  ...trainingFields
} = trainFields

const sharedFields = {
  ...trainingFields,
  lr_min: trainFields.lr_min.describe('final learning rate (default: a tenth of the peak)'),
  log_interval: trainFields.log_interval.describe(
    'updates between metrics lines (default: a fiftieth of the steps)',
  ),
  save_interval: trainFields.save_interval.describe(
    'updates between checkpoints (default: a quarter of the steps)',
  ),
  sample_interval: trainFields.sample_interval.describe(
    'updates between text samples (default: none)',
  ),
}

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
  out: z
    .string()
    .min(1)
    .optional()
    .describe('folder of the sweep (default: runs/sweep-..., named after the options)')
    .meta({ value: 'dir', ...common }),
  toy: z
    .boolean()
    .default(false)
    .describe('minimize a 10 x 10 quadratic with SGD instead (default rates: 10, 100, 1000)')
    .meta(common),
})

const EXAMPLES = [
  'kindling sweep --toy',
  'kindling sweep --corpus book.txt --preset char --vocab-size 1000 --lr 1e-4 1e-3 1e-2 --steps 200',
]

const TOY_RATES = [1e1, 1e2, 1e3]
/** Width of a plot if stdout is not a terminal. */
const PLAIN_COLUMNS = 80

export function sweepCommand(): Command {
  const command = new Command('sweep').description('compare learning rates in short training runs')
  addFields(command, { ...ownFields, ...sharedFields }, { hideRest: true })
  addExamples(command, EXAMPLES)
  return command.action(
    run(async ({ lr, steps, out, toy, ...flags }, output) => {
      const options = parse(z.strictObject(ownFields), { lr, steps, out, toy })
      if (options.toy) {
        const results = toySweep(options.lr ?? TOY_RATES, options.steps ?? 10)
        for (const result of results) output.line(result)
        output.text(toyText(results))
      } else await compare(options, flags, output)
    }),
  )
}

type Own = z.output<z.ZodObject<typeof ownFields>>

/**
 * Runs the sweep, and draws its results at the end. If it fails or is interrupted, draws those so
 * far.
 */
async function compare(own: Own, flags: GivenOptions, output: Output): Promise<void> {
  outliveOutput()
  const results: SweepResult[] = []
  const onResult = (result: SweepResult): void => {
    results.push(result)
    output.line(result)
  }
  let summary: SweepSummary
  try {
    summary = await train(own, flags, output, onResult)
  } finally {
    output.clear()
    if (results.length > 0) await draw(results, output)
  }
  output.note(`next: kindling dashboard ${summary.out}`)
}

async function draw(results: readonly SweepResult[], output: Output): Promise<void> {
  const file = join(results[0]!.run, '..', 'report.html')
  await writeSweepReport(results, file)
  const drawn = results.map((result) => ({
    result,
    lines: new RunFolder(result.run).readMetrics(),
  }))
  output.text(sweepText(drawn, columnsOf(process.stdout) ?? PLAIN_COLUMNS))
  output.note(`wrote ${file}`)
}

function train(
  { lr, steps, out }: Own,
  flags: GivenOptions,
  output: Output,
  onResult: (result: SweepResult) => void,
): Promise<SweepSummary> {
  const progress = new StepProgress('sweep', output)
  const { message, progress: onRead } = preparationReport(output)
  return withInterrupt(
    (signal) =>
      sweepOf(
        {
          ...(lr && { rates: lr }),
          ...(steps !== undefined && { steps }),
          ...(out !== undefined && { out }),
          onResult,
          onMessage: message,
          onProgress: ({ lr: rate, done, total, loss }) =>
            progress.show(`lr ${learningRate(rate)}  loss ${loss.toFixed(3)}`, done, total),
          onRead,
          signal,
        },
        flags,
      ),
    'saving a checkpoint after this step',
  )
}
