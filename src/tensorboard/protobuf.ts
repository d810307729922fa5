/** Encodes the few wire types of Protocol Buffers that event files need (https://protobuf.dev). */

const VARINT = 0
const FIXED64 = 1
const BYTES = 2
const FIXED32 = 5

/** A field of type uint64, int64 or enum, at least 0; omitted if it is 0, as in proto3. */
export function varintField(field: number, value: number): Buffer {
  return value === 0 ? Buffer.alloc(0) : Buffer.concat([tag(field, VARINT), varint(value)])
}

/** A field of type double. */
export function doubleField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleLE(value)
  return Buffer.concat([tag(field, FIXED64), bytes])
}

/** A field of type float. */
export function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return Buffer.concat([tag(field, FIXED32), bytes])
}

/** A field of type string, bytes or a message made of parts. */
export function bytesField(field: number, ...parts: readonly (string | Buffer)[]): Buffer {
  const bytes = Buffer.concat(parts.map((part) => Buffer.from(part as string)))
  return Buffer.concat([tag(field, BYTES), varint(bytes.length), bytes])
}

function tag(field: number, type: number): Buffer {
  return varint(field * 8 + type)
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  while (rest >= 128) {
    bytes.push((rest % 128) + 128)
    rest = Math.floor(rest / 128)
  }
  return Buffer.from([...bytes, rest])
}
