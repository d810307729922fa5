/** Plans a run for `kindling train --dry-run`, leaving nothing on disk. */
import { join } from 'node:path'
import { withTemporaryFolder } from '../files'
import type { ResolvedOptions } from './config'
import { estimatedSeconds, parametersOf, peakBytes } from './estimates'
import { checkpointName } from './run-checkpoints'
import { trainingTokensOf, type RunConfig } from './run-config'
import { RunFolder, runExists } from './run-folder'
import { resumedOptions, tokensPerStep } from './run-plan'
import { planStart, runToResume, type SessionReport } from './session'

/** The plan of a run. */
export interface DryRun {
  config: RunConfig
  /** Parameters of the model. */
  params: number
  /** Training tokens; null in runs of earlier versions. */
  tokens: number | null
  /** Updates of the whole run. */
  steps: number
  /** Updates done before the run starts or resumes; 0 for a new run. */
  fromStep: number
  tokensPerStep: number
  /** Peak memory as the engine plans it. */
  peakBytes: number
  /** Estimated time of all updates. */
  seconds: number
  /** Folders and files that would be written. */
  writes: string[]
}

/**
 * Plans a new run, or the rest of one that would be resumed. A corpus that has not been encoded is
 * encoded into a temporary folder, since the plan depends on its number of tokens.
 *
 * @throws KindlingError as `Trainer.run`.
 */
export async function dryRun(
  resolved: ResolvedOptions,
  report: Omit<SessionReport, 'scratch'>,
): Promise<DryRun> {
  const { resume, checkpoint } = resolved.options
  return resume || checkpoint !== undefined ? planResume(resolved) : planNew(resolved, report)
}

async function planNew(
  resolved: ResolvedOptions,
  report: Omit<SessionReport, 'scratch'>,
): Promise<DryRun> {
  const { run = 'runs/<date-time>' } = resolved.options
  if (new RunFolder(run).exists) throw runExists(run)
  return withTemporaryFolder('dry-run', async (folder) => {
    const stores: string[] = []
    const scratch = { folder: join(folder, 'corpus'), instead: (path: string) => stores.push(path) }
    const { config } = await planStart(resolved, { ...report, scratch })
    return planOf(config, 0, [...stores, ...runFiles(run, config)])
  })
}

async function planResume(resolved: ResolvedOptions): Promise<DryRun> {
  const { run, step } = runToResume(resolved.options)
  const folder = new RunFolder(run)
  const config = folder.readConfig()
  const planned = { ...config, options: resumedOptions(config.options, resolved) }
  const newest = (await folder.checkpoints.newestStep()) ?? 0
  return planOf(planned, step ?? newest, runFiles(run, planned).slice(1))
}

function planOf(config: RunConfig, fromStep: number, writes: string[]): DryRun {
  const { options, totalSteps: steps } = config
  return {
    config,
    params: parametersOf(options),
    tokens: trainingTokensOf(config) ?? null,
    steps,
    fromStep,
    tokensPerStep: tokensPerStep(options),
    peakBytes: peakBytes(options),
    seconds: estimatedSeconds(config),
    writes,
  }
}

/** Lists what a run writes. config.json comes first: a resumed run does not write it again. */
function runFiles(run: string, { options, totalSteps, tokenizerHash }: RunConfig): string[] {
  const last = Math.min(options.stopAtStep ?? totalSteps, totalSteps)
  return [
    'config.json',
    'metrics.jsonl',
    `checkpoints/${checkpointName(last)}`,
    ...(tokenizerHash === null ? [] : ['tokenizer']),
    ...(options.log === undefined ? [] : [options.log]),
  ].map((name) => join(run, name))
}
