//! GGUF files taken apart, to be damaged in one way and written out. Format: ggml's docs/gguf.md.

use std::path::Path;

/// Data of tensors begin at multiples of this; the files that tests damage name no other number.
const ALIGNMENT: usize = 32;

/// One metadata entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// `gguf_metadata_value_type`.
    pub kind: u32,
    /// The value as it lies in the file.
    pub raw: Vec<u8>,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Innermost first, as the file has them.
    pub dims: Vec<u64>,
    /// `ggml_type`.
    pub kind: u32,
    /// Its data.
    pub bytes: Vec<u8>,
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gguf {
    /// In file order.
    pub entries: Vec<Entry>,
    /// In file order.
    pub tensors: Vec<Tensor>,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn string(&mut self) -> String {
        let len = self.u64() as usize;
        String::from_utf8(self.take(len).to_vec()).expect("UTF-8")
    }

    fn skip_value(&mut self, kind: u32) {
        match kind {
            0 | 1 | 7 => self.at += 1,
            2 | 3 => self.at += 2,
            4..=6 => self.at += 4,
            10..=12 => self.at += 8,
            8 => self.at += self.u64() as usize,
            9 => {
                let (kind, count) = (self.u32(), self.u64());
                (0..count).for_each(|_| self.skip_value(kind));
            }
            other => panic!("unknown type of value {other}"),
        }
    }
}

/// Bytes of so many elements of a `ggml_type`.
fn bytes_of(kind: u32, elems: u64) -> usize {
    let (block, bytes) = match kind {
        0 => (1, 4),
        1 | 30 => (1, 2),
        2 => (32, 18),
        8 => (32, 34),
        14 => (256, 210),
        other => panic!("unknown type of tensor {other}"),
    };
    (elems / block * bytes) as usize
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Gguf {
    /// Read a file.
    ///
    /// # Panics
    /// Where it is not a sound one of types F32, F16, BF16, Q4_0, Q8_0, Q6_K: tests damage sound ones.
    pub fn load(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(bytes[..8], *b"GGUF\x03\0\0\0", "{}", path.display());
        let mut reader = Reader { bytes: &bytes, at: 8 };
        let (tensors, entries) = (reader.u64(), reader.u64());
        let entry = |reader: &mut Reader<'_>| {
            let (key, kind) = (reader.string(), reader.u32());
            let from = reader.at;
            reader.skip_value(kind);
            Entry { key, kind, raw: bytes[from..reader.at].to_vec() }
        };
        let entries: Vec<_> = (0..entries).map(|_| entry(&mut reader)).collect();
        let info = |reader: &mut Reader<'_>| {
            let name = reader.string();
            let dims: Vec<u64> = (0..reader.u32()).map(|_| reader.u64()).collect();
            let (kind, offset) = (reader.u32(), reader.u64() as usize);
            (Tensor { name, dims, kind, bytes: Vec::new() }, offset)
        };
        let infos: Vec<_> = (0..tensors).map(|_| info(&mut reader)).collect();
        let data = reader.at.next_multiple_of(ALIGNMENT);
        let filled = |(mut tensor, offset): (Tensor, usize)| {
            let size = bytes_of(tensor.kind, tensor.dims.iter().product());
            tensor.bytes = bytes[data + offset..data + offset + size].to_vec();
            tensor
        };
        Gguf { entries, tensors: infos.into_iter().map(filled).collect() }
    }

    /// Write a file; a sound one comes out as it was read.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn write(&self, path: &Path) {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.entries.len() as u64).to_le_bytes());
        for Entry { key, kind, raw } in &self.entries {
            file.extend(string(key));
            file.extend(kind.to_le_bytes());
            file.extend(raw);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            file.extend(string(&tensor.name));
            file.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| file.extend(dim.to_le_bytes()));
            file.extend(tensor.kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
            offset += (tensor.bytes.len() as u64).next_multiple_of(ALIGNMENT as u64);
        }
        for tensor in &self.tensors {
            file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
            file.extend(&tensor.bytes);
        }
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        std::fs::write(path, file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// The value of a key as it lies in the file.
    ///
    /// # Panics
    /// Where there is none.
    pub fn raw(&mut self, key: &str) -> &mut Vec<u8> {
        &mut self.entries.iter_mut().find(|entry| entry.key == key).unwrap_or_else(|| panic!("no {key}")).raw
    }

    /// Leave a key out.
    ///
    /// # Panics
    /// Where there is none.
    pub fn remove_key(&mut self, key: &str) {
        self.raw(key);
        self.entries.retain(|entry| entry.key != key);
    }

    /// The strings of a list.
    ///
    /// # Panics
    /// Where the key is missing or something else.
    pub fn strings(&mut self, key: &str) -> Vec<String> {
        let raw = self.raw(key);
        let mut reader = Reader { bytes: raw, at: 0 };
        assert_eq!(reader.u32(), 8, "{key} is no list of strings");
        (0..reader.u64()).map(|_| reader.string()).collect()
    }

    /// Put a list of strings in a key's place.
    ///
    /// # Panics
    /// Where the key is missing.
    pub fn set_strings(&mut self, key: &str, list: &[String]) {
        let mut raw = 8u32.to_le_bytes().to_vec();
        raw.extend((list.len() as u64).to_le_bytes());
        list.iter().for_each(|text| raw.extend(string(text)));
        *self.raw(key) = raw;
    }

    /// A tensor.
    ///
    /// # Panics
    /// Where there is none.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Exchange the contents of two tensors.
    ///
    /// # Panics
    /// Where one is missing, or their sizes differ.
    pub fn swap(&mut self, a: &str, b: &str) {
        let other = self.tensor(b).bytes.clone();
        let mine = std::mem::replace(&mut self.tensor(a).bytes, other);
        assert_eq!(mine.len(), self.tensor(a).bytes.len());
        self.tensor(b).bytes = mine;
    }
}
