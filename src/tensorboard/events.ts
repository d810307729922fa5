/**
 * TensorBoard's events as records of an event file: tensorflow.Event messages
 * (https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto) in
 * TFRecord framing: length, its checksum, the message, its checksum.
 */
import { maskedCrc32c } from './crc32c'
import { bytesField, doubleField, floatField, varintField } from './protobuf'

const DT_STRING = 7
const DATA_CLASS_TENSOR = 2
const SESSION_START = 1

/** Fields of an event. */
const EVENT = { wallTime: 1, step: 2, fileVersion: 3, summary: 5, sessionLog: 7 }

/** When an event happened. */
export interface EventTime {
  /** Seconds since 1970. */
  wallTime: number
  step: number
}

/** The first record of every file. */
export function versionRecord(wallTime: number): Buffer {
  return record({ wallTime, step: 0 }, bytesField(EVENT.fileVersion, 'brain.Event:2'))
}

/**
 * Returns the record that makes TensorBoard forget what earlier files say from this step on. A
 * resumed run starts with it.
 */
export function restartRecord(time: EventTime): Buffer {
  return record(time, bytesField(EVENT.sessionLog, varintField(1, SESSION_START)))
}

/** Returns the record of a number at a step. */
export function scalarRecord(time: EventTime, name: string, value: number): Buffer {
  return summaryRecord(time, [bytesField(1, name), floatField(2, value)])
}

/** Returns the record of a text at a step, which TensorBoard shows as Markdown. */
export function textRecord(time: EventTime, name: string, text: string): Buffer {
  const shape = bytesField(2, bytesField(2, varintField(1, 1)))
  const tensor = bytesField(8, varintField(1, DT_STRING), shape, bytesField(8, text))
  const plugin = bytesField(1, bytesField(1, 'text'))
  const metadata = bytesField(9, plugin, varintField(4, DATA_CLASS_TENSOR))
  return summaryRecord(time, [bytesField(1, name), tensor, metadata])
}

function summaryRecord(time: EventTime, value: readonly Buffer[]): Buffer {
  return record(time, bytesField(EVENT.summary, bytesField(1, ...value)))
}

function record({ wallTime, step }: EventTime, what: Buffer): Buffer {
  const time = doubleField(EVENT.wallTime, wallTime)
  return framed(Buffer.concat([time, varintField(EVENT.step, step), what]))
}

function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(message.length))
  return Buffer.concat([length, checksum(length), message, checksum(message)])
}

function checksum(bytes: Buffer): Buffer {
  const crc = Buffer.alloc(4)
  crc.writeUInt32LE(maskedCrc32c(bytes))
  return crc
}
