/** The machine and the software of a run: system.json in its folder. */
import { readFileSync } from 'node:fs'
import { arch, cpus, hostname, platform, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { readText, writeFileAtomic } from '../files'
import { availableThreads, instructionSet } from '../system'

const FILE = 'system.json'

/** Describes this machine and this process, with the names used in the file. */
export function thisSystem(): Record<string, string | number> {
  return {
    host: hostname(),
    os: `${platform()} ${release()} ${arch()}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableThreads(),
    instruction_set: instructionSet(),
    memory_gib: Math.round((totalmem() / 2 ** 30) * 10) / 10,
    node: process.version,
    kindling: packageVersion(),
  }
}

/**
 * Records the machine and the device that a run trains on. Failures are ignored.
 *
 * @param device - the device and its arithmetic, with the names used in the file.
 */
export async function recordSystem(folder: string, device: Record<string, string>): Promise<void> {
  const system = { format_version: 1, ...thisSystem(), ...device }
  const text = `${JSON.stringify(system, null, 2)}\n`
  await writeFileAtomic(join(folder, FILE), text).catch(() => {})
}

/** Reads what was recorded; empty if it is missing or damaged. */
export function readSystem(folder: string): Record<string, string | number> {
  try {
    const system: unknown = JSON.parse(readText(join(folder, FILE), 'ERR_INVALID_CHECKPOINT'))
    if (typeof system !== 'object' || system === null) return {}
    const isShown = ([name, value]: [string, unknown]): boolean =>
      name !== 'format_version' && (typeof value === 'string' || typeof value === 'number')
    return Object.fromEntries(Object.entries(system).filter(isShown))
  } catch {
    return {}
  }
}

function packageVersion(): string {
  try {
    const text = readFileSync(join(__dirname, '..', '..', 'package.json'), 'utf8')
    return (JSON.parse(text) as { version: string }).version
  } catch {
    return 'unknown'
  }
}
