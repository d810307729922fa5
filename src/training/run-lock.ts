/**
 * The lock of a run folder: a file `lock` that names the process that trains in it. A hard link
 * makes it appear with its contents in one step, so only one of several processes gets it. The lock
 * of a process that died on this machine is taken over. Whether a process on another machine is
 * alive cannot be checked, so its lock always holds.
 */
import {
  linkSync,
  lstatSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { toCamelCase, toSnakeCase } from '../case'
import { KindlingError } from '../errors'
import { fileOperationSync } from '../files'

const ownerSchema = z.object({
  format_version: z.literal(1),
  /** Distinguishes the locks of one process. */
  id: z.string(),
  pid: z.int().min(1),
  host: z.string(),
  /** When the lock was made, as an ISO date. */
  started_at: z.string(),
  /** Boot id of the machine and start time of the process, since a pid may be reused. */
  process_start: z.string().nullable(),
})

/** Owner of a lock. */
interface Owner {
  formatVersion: 1
  id: string
  pid: number
  host: string
  startedAt: string
  processStart: string | null
}

const LOCK = 'lock'
/** Name of a lock that has not been linked into place; captures the pid of its process. */
const DRAFT = /^lock\.(\d+)-\d+-\d+(\.stale)?$/
/** What a new run puts into its folder, up to config.json, which comes last. */
const BEFORE_CONFIG =
  /^(lock|tokenizer|\.tokenizer\..*|checkpoints|(latest|metrics\.jsonl|config\.json)(\.tmp)?)$/
/** Attempts to take a lock while other processes take and release it. */
const ATTEMPTS = 100
/** The locks of this process, released if it exits while training. */
const HELD = new Set<RunLock>()
let locks = 0

/** A lock held by this process. */
export class RunLock {
  readonly #path: string
  readonly #text: string

  private constructor(path: string, text: string) {
    this.#path = path
    this.#text = text
  }

  /**
   * Takes the lock of a run folder, which must exist.
   *
   * @param onStale - receives a sentence if the lock of a dead process is taken over.
   * @throws KindlingError `ERR_RUN_LOCKED` naming the process that holds it, `ERR_NOT_WRITABLE`,
   * `ERR_DISK_FULL`.
   */
  static take(folder: string, onStale: (text: string) => void = () => {}): RunLock {
    const path = join(folder, LOCK)
    const owner = thisProcess()
    const text = `${JSON.stringify(toSnakeCase(owner), null, 2)}\n`
    const draft = `${path}.${owner.id}`
    try {
      // Synced, so that a power cut does not leave a lock without its contents.
      fileOperationSync('write', draft, () => writeFileSync(draft, text, { flush: true }))
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        if (linkOnce(draft, path)) {
          removeDrafts(folder)
          return RunLock.#held(path, text)
        }
        const found = readLock(path)
        if (found === null) continue
        if (found.owner === null || isAlive(found.owner)) throw locked(folder, path, found.owner)
        if (removeStale(path, found.text, `${draft}.stale`)) onStale(staleText(folder, found.owner))
      }
      throw locked(folder, path, readLock(path)?.owner ?? null)
    } finally {
      rmSync(draft, { force: true })
    }
  }

  static #held(path: string, text: string): RunLock {
    const lock = new RunLock(path, text)
    if (HELD.size === 0) process.on('exit', releaseAll)
    HELD.add(lock)
    return lock
  }

  /**
   * Checks that no other process has taken the run, which is possible if someone removed the lock.
   *
   * @throws KindlingError `ERR_RUN_LOCKED`.
   */
  verify(folder: string): void {
    const found = readLock(this.#path)
    if (found !== null && found.text !== this.#text) throw locked(folder, this.#path, found.owner)
  }

  /** Removes the lock, unless another process took it meanwhile. */
  release(): void {
    if (!HELD.delete(this)) return
    if (HELD.size === 0) process.off('exit', releaseAll)
    try {
      if (readLock(this.#path)?.text === this.#text) unlinkSync(this.#path)
    } catch {
      // The folder is gone or read-only by now. A lock left behind does no harm once its process
      // has ended.
    }
  }
}

/** The process that a run folder's lock names. */
export interface LockOwner {
  pid: number
  host: string
  /** ISO date. */
  startedAt: string
  /** False only if the process is certainly dead; one on another machine counts as alive. */
  isAlive: boolean
}

/**
 * Returns the process that trains in a run folder, or that died while training there; null without
 * a lock.
 */
export function lockOwner(folder: string): LockOwner | null {
  const owner = readLock(join(folder, LOCK))?.owner ?? null
  if (owner === null) return null
  const { pid, host, startedAt } = owner
  return { pid, host, startedAt, isAlive: isAlive(owner) }
}

/**
 * Returns true if `folder` may have been left by a process that was killed while it prepared a run:
 * it holds nothing but drafts of locks, or the lock of a dead process and nothing that is written
 * after config.json. The folder of a run that lost its config.json holds more.
 */
export function isAbandonedClaim(folder: string): boolean {
  if (!lstatSync(folder).isDirectory()) return false
  const names = fileOperationSync('read', folder, () => readdirSync(folder))
  if (names.every((name) => DRAFT.test(name))) return true
  if (!names.every((name) => DRAFT.test(name) || BEFORE_CONFIG.test(name))) return false
  const found = readLock(join(folder, LOCK))
  const owner = found?.owner ?? null
  return owner !== null && !isAlive(owner)
}

/** Removes the drafts of processes that have ended on this machine. */
function removeDrafts(folder: string): void {
  for (const name of fileOperationSync('read', folder, () => readdirSync(folder))) {
    const pid = DRAFT.exec(name)?.[1]
    if (pid !== undefined && !isRunning(Number(pid))) rmSync(join(folder, name), { force: true })
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

function releaseAll(): void {
  for (const lock of [...HELD]) lock.release()
}

/**
 * Creates the lock; returns false if there is one already. On file systems without hard links,
 * creating and writing it are two steps.
 */
function linkOnce(draft: string, path: string): boolean {
  try {
    linkSync(draft, path)
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') return false
    return fileOperationSync('write', path, () => {
      if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS') throw error
      return createOnce(draft, path)
    })
  }
}

function createOnce(draft: string, path: string): boolean {
  try {
    writeFileSync(path, readFileSync(draft), { flag: 'wx', flush: true })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Reads a lock; null if there is none. Its owner is null if the file cannot be parsed. */
function readLock(path: string): { text: string; owner: Owner | null } | null {
  let text: string
  try {
    if (!lstatSync(path).isFile()) return { text: '', owner: null }
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    return { text: '', owner: null }
  }
  try {
    return { text, owner: toCamelCase(ownerSchema.parse(JSON.parse(text))) }
  } catch {
    return { text, owner: null }
  }
}

/**
 * Removes the lock of a dead process. If another process has replaced it since it was read, that
 * lock is put back. Returns whether the stale lock was removed.
 */
function removeStale(path: string, text: string, aside: string): boolean {
  try {
    renameSync(path, aside)
  } catch {
    return false
  }
  const isStale = readLock(aside)?.text === text
  if (!isStale) linkOnce(aside, path)
  rmSync(aside, { force: true })
  return isStale
}

function thisProcess(): Owner {
  return {
    formatVersion: 1,
    id: `${process.pid}-${(locks += 1)}-${Date.now()}`,
    pid: process.pid,
    host: hostname(),
    startedAt: new Date().toISOString(),
    processStart: processStart(process.pid),
  }
}

/** Returns false only if the process is certainly dead. */
function isAlive(owner: Owner): boolean {
  if (owner.host !== hostname()) return true
  if (!isRunning(owner.pid)) return false
  return owner.processStart === null || owner.processStart === processStart(owner.pid)
}

/**
 * Returns what distinguishes a process from a later one with the same pid; null where /proc does
 * not tell.
 */
function processStart(pid: number): string | null {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name in parentheses may contain spaces; the start time is the 22nd field.
    const ticks = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
    return ticks === undefined ? null : `${boot}/${ticks}`
  } catch {
    return null
  }
}

function staleText(folder: string, owner: Owner | null): string {
  const by = owner === null ? 'a process' : `process ${owner.pid}, started ${owner.startedAt},`
  return `${by} was killed while it trained in ${folder}; taking its lock over`
}

function locked(folder: string, path: string, owner: Owner | null): KindlingError {
  const fail = (message: string): KindlingError => new KindlingError('ERR_RUN_LOCKED', message)
  if (owner === null) {
    return fail(
      `${path} is not a lock file written by kindling; remove it if no process is training in ${folder}`,
    )
  }
  const { pid, host, startedAt } = owner
  const who = `process ${pid} on ${host} has been training in ${folder} since ${startedAt}`
  if (host === hostname()) return fail(`${who}; wait for it, or stop it with: kill ${pid}`)
  return fail(
    `${who}; stop it there. If it has died (this machine, ${hostname()}, cannot tell), ` +
      `remove ${path} and try again`,
  )
}
