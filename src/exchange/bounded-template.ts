/**
 * Renders Jinja templates that came with a model in bounded time and memory. They run in a thread
 * of their own, which is terminated if a template takes too long or too much memory.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'

/** Time limit of one rendering. Templates of known models take less than a millisecond. */
const MILLISECONDS = 5000

/** Memory limit of the thread. */
const MIB = 256

/** Longest rendered text, in characters. */
const LONGEST = 1 << 24

/** Code of the thread: renders what it is sent, answers, and wakes the thread that waits for it. */
const PROGRAM = `
const { jinja, port, answered } = require('node:worker_threads').workerData
const { Template } = require(jinja)
port.on('message', ({ template, values }) => {
  let answer
  try {
    const text = new Template(template).render(values)
    answer = text.length > ${LONGEST} ? { reason: 'its text is too long' } : { text }
  } catch (error) {
    answer = { reason: error.message }
  }
  port.postMessage(answer)
  Atomics.store(answered, 0, 1)
  Atomics.notify(answered, 0)
})`

interface Thread {
  worker: Worker
  port: MessagePort
  answered: Int32Array
}

interface Answer {
  text?: string
  reason?: string
}

let running: Thread | null = null

/**
 * Renders a template in the thread, and blocks until the result is there.
 *
 * @throws Error that says what is wrong with the template, or that it exceeds a limit.
 */
export function renderBounded(
  template: string,
  values: Record<string, unknown>,
  milliseconds = MILLISECONDS,
): string {
  running ??= start()
  const { worker, port, answered } = running
  Atomics.store(answered, 0, 0)
  port.postMessage({ template, values })
  if (Atomics.wait(answered, 0, 0, milliseconds) === 'timed-out') {
    running = null
    void worker.terminate()
    throw new Error(`rendering it takes more than ${milliseconds / 1000} s or ${MIB} MiB`)
  }
  const { text, reason } = receiveMessageOnPort(port)!.message as Answer
  if (text === undefined) throw new Error(reason)
  return text
}

function start(): Thread {
  const answered = new Int32Array(new SharedArrayBuffer(4))
  const { port1: port, port2 } = new MessageChannel()
  const worker = new Worker(PROGRAM, {
    eval: true,
    workerData: { jinja: require.resolve('@huggingface/jinja'), port: port2, answered },
    transferList: [port2],
    resourceLimits: { maxOldGenerationSizeMb: MIB },
  })
  // Out of memory: the wait for the answer times out, which is reported as an error.
  worker.on('error', () => {})
  worker.unref()
  port.unref()
  return { worker, port, answered }
}
