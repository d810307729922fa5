/** Paths of token stores: what a new store would replace. */
import { existsSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { basename, dirname, join, resolve, sep } from 'node:path'
import { z } from 'zod'
import { KindlingError } from './errors'
import { checkedValue } from './options'

/**
 * Returns the paths of the stores that writing to `out` would replace, whether or not they exist.
 */
export function storesIn(out: string): string[] {
  return basename(resolve(out)).endsWith('_chunks')
    ? [out]
    : ['train_chunks', 'valid_chunks'].map((name) => join(out, name))
}

/** Returns those of `storesIn` that exist. */
export function existingStores(out: string): string[] {
  return storesIn(out).filter((store) => existsSync(store))
}

/**
 * Returns the store to evaluate on at `path`: the validation tokens of an output folder of
 * `kindling encode`, or all its tokens if none were set aside; else the store itself.
 */
export function evaluationStore(path: string): string {
  const inside = ['valid_chunks', 'train_chunks'].map((name) => join(path, name))
  return inside.find((store) => existsSync(store)) ?? path
}

/**
 * Refuses an output that would replace an input.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT`.
 */
export async function refuseInputAsOutput(inputs: readonly string[], out: string): Promise<void> {
  checkedValue('out', z.string(), out)
  const targets = await Promise.all(storesIn(out).map(realPath))
  for (const input of inputs) {
    const source = await realPath(input)
    if (!targets.some((target) => isInside(source, target) || isInside(target, source))) continue
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      `the output ${out} would replace the input ${input}; choose another output folder`,
    )
  }
}

/** Returns a path without links, whether or not it exists. */
async function realPath(path: string): Promise<string> {
  const whole = resolve(path)
  const parent = dirname(whole)
  if (parent === whole) return whole
  return realpath(whole).catch(async () => join(await realPath(parent), basename(whole)))
}

function isInside(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : `${folder}${sep}`)
}
