/**
 * Renders Jinja templates that came with a model, in bounded time and memory: in a thread of their
 * own, which is ended where a template takes too long or holds too much.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'

/** Longest time of one rendering. Those of known models take less than a millisecond. */
const MILLISECONDS = 5000

/** Most memory of the thread. */
const MIB = 256

/** Longest result, in characters. */
const LONGEST = 1 << 24

/** The thread: renders what it is sent, answers, and wakes the thread that waits for it. */
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
 * Renders a template in the thread, and waits.
 *
 * @throws Error that says what is wrong with the template, or that it takes too much.
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
  // Out of memory; the wait for its answer ends with an error.
  worker.on('error', () => {})
  worker.unref()
  port.unref()
  return { worker, port, answered }
}
