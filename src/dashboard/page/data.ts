/**
 * Requests to the server, and the types of its answers. URLs are relative to the page's, which
 * contains the token.
 */

export type Axis = 'step' | 'tokens' | 'elapsed_s'

/** A run, as the server describes it. Values are null, or absent, where there is none. */
export interface Run {
  id: number
  name: string
  path: string
  state: 'running' | 'finished' | 'interrupted' | 'broken'
  note: string | null
  steps: number
  total_steps: number | null
  loss: number | null
  val_loss: number | null
  tokens: number | null
  tokens_per_second: number | null
  elapsed_s: number | null
  started_at: string | null
  updated_at: string | null
  mfu?: number | null
  lr?: number | null
  grad_norm?: number | null
  memory_mib?: number | null
  lines?: number
  damaged_lines?: number
  num_samples?: number
  metrics?: string[]
  /** Changes whenever there is something new to draw. */
  version: string
}

export interface Snapshot {
  runs: Run[]
  places: string[]
}

export interface Points {
  x: number[]
  y: number[]
}

export interface RunSeries extends Points {
  id: number
  smooth: Points | null
}

export interface Window {
  from: number
  to: number
}

export interface SeriesAnswer {
  axis: Axis
  range: Window
  window: Window
  is_complete: boolean
  lines: number
  series: Record<string, RunSeries[]>
}

export interface Details {
  id: number
  options: { name: string; value: string; is_default: boolean; description: string }[]
  command: string | null
  accounting: {
    parameters: number
    flops_per_token: number
    tokens: number
    tokens_per_parameter: number
    flops: number
    elapsed_s: number | null
    mean_tokens_per_second: number | null
    mean_flops_per_second: number | null
    mfu: number | null
  } | null
  system: Record<string, string | number>
}

export interface Sample {
  step: number
  text: string
}

/** Requests JSON from the server; null if the server is gone or answers with an error. */
export async function get<T>(
  path: string,
  query: Readonly<Record<string, string>> = {},
): Promise<T | null> {
  try {
    const response = await fetch(`api/${path}?${new URLSearchParams(query)}`)
    return response.ok ? ((await response.json()) as T) : null
  } catch {
    return null
  }
}
