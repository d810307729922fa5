/**
 * The text files that accompany a model, such as tokenizer_config.json with its chat template and
 * generation_config.json. A run keeps those of an imported model beside its tokenizer.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { readText, writeFileAtomic } from '../files'
import type { Tokenizer } from '../tokenizer'

/** Contents of text files, by file name. */
export type Companions = Record<string, string>

/** A name, not a path: they are written into a folder that was named, and nowhere else. */
const fileName = z.string().regex(/^\w[\w.-]*$/, 'must be the name of a file')
export const companionsSchema = z.record(fileName, z.string())

const FILES = [
  'tokenizer_config.json',
  'generation_config.json',
  'chat_template.jinja',
  'special_tokens_map.json',
]

/** Reads the companion files that a folder has. */
export function readCompanions(folder: string): Companions {
  const companions: Companions = {}
  for (const name of FILES) {
    const path = join(folder, name)
    if (!existsSync(path)) continue
    companions[name] = readText(path, 'ERR_INVALID_MODEL')
  }
  return companions
}

/** Writes the files to an existing folder. */
export async function writeCompanions(folder: string, companions: Companions): Promise<void> {
  for (const [name, text] of Object.entries(companions)) {
    await writeFileAtomic(join(folder, name), text)
  }
}

/**
 * Returns the ids that end a text or a turn according to generation_config.json and
 * tokenizer_config.json.
 */
export function stopIdsOf(companions: Companions, tokenizer: Tokenizer | null): number[] {
  const ids = [jsonOf(companions, 'generation_config.json')['eos_token_id']].flat()
  const token = jsonOf(companions, 'tokenizer_config.json')['eos_token']
  const text = typeof token === 'string' ? token : (token as { content?: unknown })?.content
  if (typeof text === 'string') ids.push(tokenizer?.tokenId(text))
  return [...new Set(ids.filter((id): id is number => Number.isSafeInteger(id)))]
}

function jsonOf(companions: Companions, name: string): Record<string, unknown> {
  try {
    const json: unknown = JSON.parse(companions[name] ?? '{}')
    return typeof json === 'object' && json !== null ? (json as Record<string, unknown>) : {}
  } catch {
    // A damaged file is kept as it came, and tells nothing.
    return {}
  }
}
