/**
 * Determines the state of a run from its folder: lock, config.json, metrics.jsonl, `latest` and
 * checkpoints/.
 */
import { statSync } from 'node:fs'
import { hostname } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { fromNative } from '../errors'
import { readText } from '../files'
import { RunCheckpoints } from '../training/run-checkpoints'
import { parseRunConfig, type RunConfig } from '../training/run-config'
import { lockOwner, type LockOwner } from '../training/run-lock'
import { readLastMetrics } from './metrics-tail'

/** running: a process trains in it; broken: it cannot be resumed as it is. */
export type RunState = 'running' | 'finished' | 'interrupted' | 'broken'

/** What is known of a run. */
export interface RunInfo {
  name: string
  /** Absolute path of its folder. */
  path: string
  state: RunState
  /** A sentence on why it is broken, or what else a reader should know. */
  note: string | null
  /** Updates done. */
  steps: number
  /** Updates of the whole run; null if config.json cannot be read. */
  totalSteps: number | null
  /** The last training loss. */
  loss: number | null
  /** The last validation loss. */
  valLoss: number | null
  tokens: number | null
  tokensPerSecond: number | null
  /** Seconds of training so far. */
  elapsedS: number | null
  /** When config.json and metrics.jsonl were last written, as ISO dates. */
  startedAt: string | null
  updatedAt: string | null
}

/** What was found in a run's folder. `config` is null if it cannot be read. */
export interface InspectedRun {
  info: RunInfo
  config: RunConfig | null
}

/**
 * Inspects a run. Never throws: if config.json or the checkpoints cannot be read, the run is
 * broken.
 */
export async function inspectRun(path: string): Promise<InspectedRun> {
  const metricsPath = join(path, 'metrics.jsonl')
  const { config, problem } = readConfig(path)
  const owner = lockOwner(path)
  const last = await readLastMetrics(metricsPath)
  const saved = await savedSteps(path)
  const totalSteps = config?.totalSteps ?? null
  const steps = Math.max(last.step ?? 0, saved.newest ?? 0)
  const verdict = judge({ owner, config, problem, saved, path })
  return {
    config,
    info: {
      name: basename(resolve(path)),
      path: resolve(path),
      ...verdict,
      steps,
      totalSteps,
      loss: last.loss,
      valLoss: last.valLoss,
      tokens: last.tokens,
      tokensPerSecond: last.tokensPerSecond,
      elapsedS: last.elapsedS,
      startedAt: changedAt(join(path, 'config.json')),
      updatedAt: changedAt(metricsPath),
    },
  }
}

interface Evidence {
  path: string
  owner: LockOwner | null
  config: RunConfig | null
  problem: string | null
  saved: SavedSteps
}

function judge({ path, owner, config, problem, saved }: Evidence): {
  state: RunState
  note: string | null
} {
  if (owner?.isAlive) {
    const elsewhere = owner.host === hostname() ? '' : ` on ${owner.host}`
    return { state: 'running', note: `process ${owner.pid}${elsewhere}` }
  }
  if (config === null) return { state: 'broken', note: problem }
  if (saved.problem !== null) return { state: 'broken', note: saved.problem }
  if (saved.newest !== null && saved.newest >= config.totalSteps) {
    return { state: 'finished', note: null }
  }
  const diverged = nonFiniteStep(path)
  if (diverged !== null && diverged > (saved.newest ?? 0)) {
    return { state: 'interrupted', note: `a number was not finite at step ${diverged}` }
  }
  const killed = owner !== null ? 'its process was killed' : null
  return { state: 'interrupted', note: saved.newest === null ? 'no checkpoint yet' : killed }
}

interface SavedSteps {
  newest: number | null
  problem: string | null
}

async function savedSteps(path: string): Promise<SavedSteps> {
  const checkpoints = new RunCheckpoints(path)
  try {
    const steps = await checkpoints.steps()
    const latest = checkpoints.latestStep()
    if (latest !== null && steps.length === 0) {
      return { newest: null, problem: `latest names step ${latest}, whose checkpoint is missing` }
    }
    return { newest: await checkpoints.newestStep(), problem: null }
  } catch (error) {
    return { newest: null, problem: messageOf(error) }
  }
}

function readConfig(path: string): { config: RunConfig | null; problem: string | null } {
  const file = join(path, 'config.json')
  try {
    return { config: parseRunConfig(file, readText(file, 'ERR_INVALID_CHECKPOINT')), problem: null }
  } catch (error) {
    const { code, message } = fromNative(error)
    return { config: null, problem: code === 'ERR_NOT_FOUND' ? 'it has no config.json' : message }
  }
}

/** Returns the step at which a run stopped at a NaN or an infinity; null if it did not. */
export function nonFiniteStep(path: string): number | null {
  try {
    const text = readText(join(path, 'non-finite.json'), 'ERR_INVALID_CHECKPOINT')
    const { step } = JSON.parse(text) as { step?: unknown }
    return typeof step === 'number' ? step : null
  } catch {
    return null
  }
}

function changedAt(file: string): string | null {
  try {
    return statSync(file).mtime.toISOString()
  } catch {
    return null
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
