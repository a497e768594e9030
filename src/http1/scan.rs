//! The slow walk over a head that names its first fault.
//!
//! `quick` tells that a head is not well-formed or not complete, not which rule it broke. This walk
//! takes one byte after the other and stops at the first one that no
//! valid head could have there, so that its answer for a beginning of a head stays its answer for
//! all of it: verdicts don't depend on how the bytes were split. It runs for refused and unfinished
//! heads only (and over trailers). About 1 ns a byte.

use crate::http::fields::is_token_byte;
use crate::http1::fault::{FieldFault, RequestFault, ResponseFault};
use crate::http1::{Limits, METHOD_BYTES_MAX};

/// What the walk over a buffer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict<T, F> {
    /// All bytes are fine, the end was not there.
    Unfinished,
    /// A well-formed head.
    Finished(T),
    /// The first fault.
    Fault(F),
}

/// Where the parts of a well-formed request head stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestParts {
    pub(super) method: (usize, usize),
    pub(super) target: (usize, usize),
    pub(super) minor: u8,
    /// First byte after the request line.
    pub(super) fields_at: usize,
    /// First byte after the head.
    pub(super) end: usize,
}

/// Where the parts of a well-formed response head stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResponseParts {
    pub(super) status: u16,
    pub(super) minor: u8,
    /// First byte after the status line.
    pub(super) fields_at: usize,
}

/// Walks over a request head.
pub(super) fn scan_request(buf: &[u8], limits: &Limits) -> Verdict<RequestParts, RequestFault> {
    let mut line = RequestLine::new();
    let mut bytes = buf.iter().copied().enumerate();
    let mut parts = loop {
        let Some((at, byte)) = bytes.next() else { return Verdict::Unfinished };
        match line.on_byte(at, byte, limits) {
            Ok(None) => {}
            Ok(Some(parts)) => break parts,
            Err(fault) => return Verdict::Fault(fault),
        }
    };
    let mut fields = FieldScan::new();
    for (at, byte) in bytes {
        match fields.on_byte(byte, limits) {
            Ok(FieldEvent::End) => {
                parts.end = at + 1;
                return Verdict::Finished(parts);
            }
            Ok(_) => {}
            Err(fault) => return Verdict::Fault(RequestFault::Field(fault)),
        }
    }
    Verdict::Unfinished
}

/// Walks over a status line, not over the fields.
pub(super) fn scan_status_line(buf: &[u8]) -> Verdict<ResponseParts, ResponseFault> {
    let mut line = StatusLine::new();
    for (at, byte) in buf.iter().copied().enumerate() {
        match line.on_byte(at, byte) {
            Ok(None) => {}
            Ok(Some(parts)) => return Verdict::Finished(parts),
            Err(fault) => return Verdict::Fault(fault),
        }
    }
    Verdict::Unfinished
}

/// Walks over a field section up to and including its empty line.
pub(super) fn scan_fields(buf: &[u8], limits: &Limits) -> Verdict<usize, FieldFault> {
    let mut fields = FieldScan::new();
    for (at, byte) in buf.iter().copied().enumerate() {
        match fields.on_byte(byte, limits) {
            Ok(FieldEvent::End) => return Verdict::Finished(at + 1),
            Ok(_) => {}
            Err(fault) => return Verdict::Fault(fault),
        }
    }
    Verdict::Unfinished
}

/// A field section byte by byte (RFC 9112 section 5).
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldScan {
    state: FieldState,
    lines: usize,
    /// Bytes of the current line so far, without its CRLF.
    line_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldState {
    LineStart,
    Name,
    Value,
    LineCr,
    EndCr,
}

/// What a byte completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldEvent {
    /// Nothing.
    Within,
    /// A field line.
    Line,
    /// The section.
    End,
}

impl FieldScan {
    pub(super) const fn new() -> Self {
        Self { state: FieldState::LineStart, lines: 0, line_bytes: 0 }
    }

    pub(super) fn on_byte(&mut self, byte: u8, limits: &Limits) -> Result<FieldEvent, FieldFault> {
        match self.state {
            FieldState::LineStart => {
                self.on_line_start(byte)?;
                if self.state == FieldState::Name && self.lines > limits.fields_max {
                    return Err(FieldFault::TooMany);
                }
            }
            FieldState::Name => match byte {
                b':' => self.state = FieldState::Value,
                b' ' | b'\t' => return Err(FieldFault::SpaceBeforeColon),
                byte if is_token_byte(byte) => {}
                _ => return Err(FieldFault::BadName),
            },
            FieldState::Value => match byte {
                b'\r' => {
                    self.state = FieldState::LineCr;
                    return Ok(FieldEvent::Within);
                }
                b'\n' => return Err(FieldFault::BareLf),
                byte if is_value_byte(byte) => {}
                _ => return Err(FieldFault::BadValue),
            },
            FieldState::LineCr | FieldState::EndCr if byte != b'\n' => {
                return Err(FieldFault::BareCr);
            }
            FieldState::LineCr => {
                self.state = FieldState::LineStart;
                return Ok(FieldEvent::Line);
            }
            FieldState::EndCr => return Ok(FieldEvent::End),
        }
        self.line_bytes += 1;
        if self.state != FieldState::EndCr && self.line_bytes > limits.field_bytes_max {
            return Err(FieldFault::TooLarge);
        }
        Ok(FieldEvent::Within)
    }

    fn on_line_start(&mut self, byte: u8) -> Result<(), FieldFault> {
        self.line_bytes = 0;
        self.state = match byte {
            b'\r' => FieldState::EndCr,
            b'\n' => return Err(FieldFault::BareLf),
            b' ' | b'\t' if self.lines == 0 => return Err(FieldFault::SpaceBeforeFirst),
            b' ' | b'\t' => return Err(FieldFault::ObsFold),
            b':' => return Err(FieldFault::EmptyName),
            byte if is_token_byte(byte) => {
                self.lines += 1;
                FieldState::Name
            }
            _ => return Err(FieldFault::BadName),
        };
        Ok(())
    }
}

/// A request line and the empty lines before it (RFC 9112 sections 2.2 and 3).
struct RequestLine {
    state: LineState,
    empty_lines: usize,
    /// Where the current part started.
    from: usize,
    parts: RequestParts,
    major: u8,
}

#[derive(Clone, Copy)]
enum LineState {
    Start,
    EmptyCr,
    Method,
    Target,
    Version,
    VersionCr,
}

impl RequestLine {
    const fn new() -> Self {
        let parts = RequestParts { method: (0, 0), target: (0, 0), minor: 0, fields_at: 0, end: 0 };
        Self { state: LineState::Start, empty_lines: 0, from: 0, parts, major: 0 }
    }

    fn on_byte(
        &mut self,
        at: usize,
        byte: u8,
        limits: &Limits,
    ) -> Result<Option<RequestParts>, RequestFault> {
        match self.state {
            LineState::Start => match byte {
                b'\r' if self.empty_lines == EMPTY_LINES_MAX => {
                    return Err(RequestFault::TooManyEmptyLines);
                }
                b'\r' => self.state = LineState::EmptyCr,
                b'\n' => return Err(RequestFault::BareLf),
                byte if is_token_byte(byte) => {
                    self.from = at;
                    self.state = LineState::Method;
                }
                _ => return Err(RequestFault::BadMethod),
            },
            LineState::EmptyCr if byte == b'\n' => {
                self.empty_lines += 1;
                self.state = LineState::Start;
            }
            LineState::EmptyCr => return Err(RequestFault::BareCr),
            LineState::Method => self.on_method(at, byte)?,
            LineState::Target => self.on_target(at, byte, limits)?,
            LineState::Version => self.on_version(at, byte)?,
            LineState::VersionCr if byte != b'\n' => return Err(RequestFault::BareCr),
            LineState::VersionCr if self.major != 1 => {
                return Err(RequestFault::UnsupportedVersion);
            }
            LineState::VersionCr => {
                self.parts.fields_at = at + 1;
                return Ok(Some(self.parts));
            }
        }
        Ok(None)
    }

    fn on_method(&mut self, at: usize, byte: u8) -> Result<(), RequestFault> {
        match byte {
            b' ' => {
                self.parts.method = (self.from, at);
                self.from = at + 1;
                self.state = LineState::Target;
            }
            byte if !is_token_byte(byte) => return Err(RequestFault::BadMethod),
            _ if at - self.from >= METHOD_BYTES_MAX => return Err(RequestFault::MethodTooLong),
            _ => {}
        }
        Ok(())
    }

    fn on_target(&mut self, at: usize, byte: u8, limits: &Limits) -> Result<(), RequestFault> {
        match byte {
            b' ' if at == self.from => return Err(RequestFault::BadSpacing),
            b' ' => {
                self.parts.target = (self.from, at);
                self.from = at + 1;
                self.state = LineState::Version;
            }
            b'\r' | b'\n' => return Err(RequestFault::MissingVersion),
            b'#' => return Err(RequestFault::FragmentInTarget),
            0x21..=0x7e if at - self.from < limits.target_bytes_max => {}
            0x21..=0x7e => return Err(RequestFault::TargetTooLong),
            _ => return Err(RequestFault::BadTargetByte),
        }
        Ok(())
    }

    fn on_version(&mut self, at: usize, byte: u8) -> Result<(), RequestFault> {
        match (at - self.from, byte) {
            (0, b' ') => return Err(RequestFault::BadSpacing),
            (0, b'\r' | b'\n') => return Err(RequestFault::MissingVersion),
            (5, b'0'..=b'9') => self.major = byte - b'0',
            (7, b'0'..=b'9') => self.parts.minor = byte - b'0',
            (8, b'\r') => self.state = LineState::VersionCr,
            (8, b'\n') => return Err(RequestFault::BareLf),
            (5 | 7, _) => return Err(RequestFault::BadVersion),
            (index, byte) if VERSION.get(index) == Some(&byte) => {}
            _ => return Err(RequestFault::BadVersion),
        }
        Ok(())
    }
}

/// A status line (RFC 9112 section 4).
struct StatusLine {
    major: u8,
    minor: u8,
    status: u16,
    ending: bool,
}

impl StatusLine {
    const fn new() -> Self {
        Self { major: 0, minor: 0, status: 0, ending: false }
    }

    fn on_byte(&mut self, at: usize, byte: u8) -> Result<Option<ResponseParts>, ResponseFault> {
        if self.ending {
            if byte != b'\n' {
                return Err(ResponseFault::BadLineEnd);
            }
            let (status, minor) = (self.status, self.minor);
            return Ok(Some(ResponseParts { status, minor, fields_at: at + 1 }));
        }
        match (at, byte) {
            (5, b'0'..=b'9') => self.major = byte - b'0',
            (7, b'0'..=b'9') => self.minor = byte - b'0',
            (0..=4 | 6, byte) if VERSION.get(at) == Some(&byte) => {}
            (0..=7, _) => return Err(ResponseFault::BadVersion),
            (8, b' ') if self.major != 1 => return Err(ResponseFault::UnsupportedVersion),
            (8, b' ') => {}
            (8, _) => return Err(ResponseFault::BadVersion),
            (9, b'1'..=b'9') | (10 | 11, b'0'..=b'9') => {
                self.status = self.status * 10 + u16::from(byte - b'0');
            }
            (9..=11, _) => return Err(ResponseFault::BadStatus),
            (_, b'\r') => self.ending = true,
            (_, b'\n') => return Err(ResponseFault::BadLineEnd),
            (12, byte) if byte != b' ' => return Err(ResponseFault::BadStatus),
            (_, byte) if is_value_byte(byte) => {}
            _ => return Err(ResponseFault::BadReason),
        }
        Ok(None)
    }
}

/// HTAB, SP, VCHAR and obs-text (RFC 9110 section 5.5).
pub(super) const fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..=0xff)
}

/// Empty lines before a request line that are ignored: some old clients send one after a body
/// (RFC 9112 section 2.2); a stream of them is noise.
pub(super) const EMPTY_LINES_MAX: usize = 2;
/// The digits are wildcards.
const VERSION: &[u8; 8] = b"HTTP/0.0";
