//! Reads the pickles of PyTorch checkpoints with a stack machine that builds data and runs no code.
//!
//! It knows the opcodes that dictionaries of tensors, numbers and texts need. A call (`REDUCE`)
//! must be of `OrderedDict`, `_rebuild_tensor_v2` or `_rebuild_parameter`, which build a node here.
//! Any other name is an error, and nothing is ever imported or run. Nodes refer to each other by
//! index, so no nesting can overflow the stack, and there is at most one node per opcode.
//! Source: Lib/pickletools.py of `CPython`.

use std::collections::HashMap;

use crate::exchange::tensor_files::MOST_DIMENSIONS;

/// Index of a node.
pub(super) type NodeId = u32;

/// Most nodes of a pickle. A checkpoint with its optimizer has some thousands.
const MOST_NODES: usize = 1 << 20;
/// Longest name of a class, a function or a storage. Names are copied each time they are used, so
/// long ones could fill the memory.
const LONGEST_NAME: usize = 256;

/// A value in a pickle.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// A value that is not needed: `None`, a boolean, a float or a long integer.
    Other,
    Integer(i64),
    Text(String),
    Tuple(Vec<NodeId>),
    List(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    /// `module.name`.
    Global(String),
    Storage {
        kind: String,
        key: String,
    },
    Tensor {
        storage: NodeId,
        offset: u64,
        shape: Vec<u64>,
        stride: Vec<u64>,
    },
}

/// A pickle that has been read.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    root: NodeId,
}

impl Pickle {
    /// Reads a pickle. The error says what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine { rest: bytes, ..Machine::default() };
        loop {
            let opcode = machine.byte()?;
            if opcode == b'.' {
                let root = machine.pop()?;
                return Ok(Self { nodes: machine.nodes, root });
            }
            machine.run(opcode)?;
        }
    }

    pub(super) fn root(&self) -> NodeId {
        self.root
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    /// Returns the value of a key of a dictionary.
    pub(super) fn item(&self, dict: NodeId, key: &str) -> Option<NodeId> {
        let Node::Dict(items) = self.node(dict) else { return None };
        let found = items.iter().find(|(k, _)| matches!(self.node(*k), Node::Text(t) if t == key));
        found.map(|(_, value)| *value)
    }
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    nodes: Vec<Node>,
    stack: Vec<NodeId>,
    /// Height of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, NodeId>,
}

type Outcome<T = ()> = Result<T, String>;

impl<'a> Machine<'a> {
    fn take(&mut self, length: usize) -> Outcome<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err("its pickle ends early".to_owned());
        };
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Outcome<u8> {
        Ok(self.take(1)?[0])
    }

    /// Reads a little-endian integer of `length` bytes.
    fn number(&mut self, length: usize) -> Outcome<u64> {
        let bytes = self.take(length)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(&mut self, length: u64) -> Outcome<String> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let text = str::from_utf8(self.take(length)?);
        text.map(str::to_owned).map_err(|_| "a string in its pickle is not UTF-8".to_owned())
    }

    /// Reads up to the end of a line.
    fn line(&mut self) -> Outcome<String> {
        let end = memchr::memchr(b'\n', self.rest).ok_or("its pickle ends early")?;
        let line = self.text(end as u64)?;
        self.byte()?;
        Ok(line)
    }

    fn push(&mut self, node: Node) -> Outcome {
        if self.nodes.len() >= MOST_NODES {
            return Err("its pickle has impossibly many values".to_owned());
        }
        self.stack.push(self.nodes.len() as NodeId);
        self.nodes.push(node);
        Ok(())
    }

    fn pop(&mut self) -> Outcome<NodeId> {
        let mark = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= mark {
            return Err("its pickle takes a value from an empty stack".to_owned());
        }
        self.stack.pop().ok_or_else(|| "its pickle has an empty stack".to_owned())
    }

    fn top(&self) -> Outcome<NodeId> {
        self.stack.last().copied().ok_or_else(|| "its pickle has an empty stack".to_owned())
    }

    /// Pops the last mark and the values above it.
    fn pop_mark(&mut self) -> Outcome<Vec<NodeId>> {
        let mark = self.marks.pop().ok_or("its pickle has no mark")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn memoize(&mut self, slot: u64) -> Outcome {
        let slot =
            u32::try_from(slot).map_err(|_| "its pickle uses a memo slot that is out of range")?;
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u64) -> Outcome {
        let found = u32::try_from(slot).ok().and_then(|slot| self.memo.get(&slot));
        let id = *found.ok_or("its pickle reads an empty memo slot")?;
        self.stack.push(id);
        Ok(())
    }

    fn run(&mut self, opcode: u8) -> Outcome {
        match opcode {
            // PROTO; FRAME
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            // NONE, NEWTRUE, NEWFALSE, BINFLOAT, LONG1
            b'N' | 0x88 | 0x89 => self.push(Node::Other),
            b'G' => self.take(8).and_then(|_| self.push(Node::Other)),
            0x8A => self.long(),
            // BININT, BININT1, BININT2
            b'J' => self
                .number(4)
                .and_then(|n| self.push(Node::Integer((n as u32).cast_signed().into()))),
            b'K' => self.number(1).and_then(|n| self.push(Node::Integer(n as i64))),
            b'M' => self.number(2).and_then(|n| self.push(Node::Integer(n as i64))),
            // BINUNICODE, SHORT_BINUNICODE
            b'X' => self.sized_text(4),
            0x8C => self.sized_text(1),
            // EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE
            b'}' => self.push(Node::Dict(Vec::new())),
            b']' => self.push(Node::List(Vec::new())),
            b')' => self.push(Node::Tuple(Vec::new())),
            // MARK
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            // TUPLE, TUPLE1, TUPLE2, TUPLE3
            b't' => self.pop_mark().and_then(|items| self.push(Node::Tuple(items))),
            0x85..=0x87 => self.tuple(usize::from(opcode - 0x84)),
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => self.number(1).and_then(|slot| self.memoize(slot)),
            b'r' => self.number(4).and_then(|slot| self.memoize(slot)),
            0x94 => self.memoize(self.memo.len() as u64),
            // BINGET, LONG_BINGET
            b'h' => self.number(1).and_then(|slot| self.recall(slot)),
            b'j' => self.number(4).and_then(|slot| self.recall(slot)),
            // APPEND, APPENDS, SETITEM, SETITEMS
            b'a' => self.pop().and_then(|item| self.append(vec![item])),
            b'e' => self.pop_mark().and_then(|items| self.append(items)),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])
            }
            b'u' => self.pop_mark().and_then(|items| self.set_items(&items)),
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let name = format!("{}.{}", self.line()?, self.line()?);
                self.push(Node::Global(name))
            }
            0x93 => self.stack_global(),
            // BINPERSID, REDUCE, BUILD
            b'Q' => self.storage(),
            b'R' => self.reduce(),
            // BUILD sets the attributes of an OrderedDict (its `_metadata`), which are dropped.
            b'b' => self.pop().map(drop),
            other => Err(format!(
                "its pickle has the opcode {other:#04x}, which a dictionary of tensors does not need"
            )),
        }
    }

    fn long(&mut self) -> Outcome {
        let length = self.byte()?;
        self.take(length.into())?;
        self.push(Node::Other)
    }

    fn sized_text(&mut self, length_bytes: usize) -> Outcome {
        let length = self.number(length_bytes)?;
        let text = self.text(length)?;
        self.push(Node::Text(text))
    }

    fn tuple(&mut self, length: usize) -> Outcome {
        let mut items = (0..length).map(|_| self.pop()).collect::<Outcome<Vec<_>>>()?;
        items.reverse();
        self.push(Node::Tuple(items))
    }

    fn append(&mut self, items: Vec<NodeId>) -> Outcome {
        let list = self.top()?;
        match &mut self.nodes[list as usize] {
            Node::List(list) => {
                list.extend(items);
                Ok(())
            }
            _ => Err("its pickle appends to something other than a list".to_owned()),
        }
    }

    fn set_items(&mut self, items: &[NodeId]) -> Outcome {
        let dict = self.top()?;
        match &mut self.nodes[dict as usize] {
            Node::Dict(dict) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            _ => Err("its pickle sets items of something other than a dictionary".to_owned()),
        }
    }

    fn stack_global(&mut self) -> Outcome {
        let (name, module) = (self.pop()?, self.pop()?);
        match (&self.nodes[module as usize], &self.nodes[name as usize]) {
            (Node::Text(module), Node::Text(name))
                if module.len().max(name.len()) <= LONGEST_NAME =>
            {
                let global = format!("{module}.{name}");
                self.push(Node::Global(global))
            }
            _ => Err("its pickle has a name that is not a string, or is too long".to_owned()),
        }
    }

    fn tuple_items(&self, id: NodeId) -> &[NodeId] {
        match &self.nodes[id as usize] {
            Node::Tuple(items) => items,
            _ => &[],
        }
    }

    /// Pops a persistent id, ('storage', torch.FloatStorage, key, device, elements), and pushes its
    /// storage.
    fn storage(&mut self) -> Outcome {
        let id = self.pop()?;
        let [_, kind, key, ..] = *self.tuple_items(id) else {
            return Err("its pickle refers to an unknown kind of storage".to_owned());
        };
        match (&self.nodes[kind as usize], &self.nodes[key as usize]) {
            (Node::Global(kind), Node::Text(key)) if key.len() <= LONGEST_NAME => {
                let kind = kind.rsplit('.').next().unwrap_or_default().to_owned();
                let key = key.clone();
                self.push(Node::Storage { kind, key })
            }
            _ => Err("its pickle refers to an unknown kind of storage".to_owned()),
        }
    }

    fn reduce(&mut self) -> Outcome {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let name = match &self.nodes[callable as usize] {
            Node::Global(name) => name.clone(),
            _ => "a value".to_owned(),
        };
        match name.as_str() {
            "collections.OrderedDict" => self.push(Node::Dict(Vec::new())),
            "torch._utils._rebuild_tensor_v2" => self.rebuild_tensor(arguments),
            "torch._utils._rebuild_parameter" => {
                let [tensor, ..] = *self.tuple_items(arguments) else {
                    return Err("its pickle has a parameter without a tensor".to_owned());
                };
                self.stack.push(tensor);
                Ok(())
            }
            other => Err(format!(
                "its pickle calls {other}, but Kindling reads only tensors and never runs code"
            )),
        }
    }

    /// Builds a tensor from the arguments (storage, offset, shape, stride, ...); sizes are in
    /// elements.
    fn rebuild_tensor(&mut self, arguments: NodeId) -> Outcome {
        let [storage, offset, shape, stride, ..] = *self.tuple_items(arguments) else {
            return Err("its pickle has a tensor without a shape".to_owned());
        };
        let size = |id: &NodeId| match self.nodes[*id as usize] {
            Node::Integer(number) => u64::try_from(number).ok(),
            _ => None,
        };
        let sizes = |id| {
            let items = self.tuple_items(id);
            let sizes = items.iter().map(size).collect::<Option<Vec<u64>>>();
            sizes.filter(|_| items.len() <= MOST_DIMENSIONS)
        };
        let tensor = (size(&offset), sizes(shape), sizes(stride));
        let (Some(offset), Some(shape), Some(stride)) = tensor else {
            return Err("its pickle has a tensor of an impossible size".to_owned());
        };
        self.push(Node::Tensor { storage, offset, shape, stride })
    }
}
