//! TPM 2.0 frames: commands are written, answers are read (TPM 2.0 part 1, section 16 and 18).
//!
//! Commands carry passwords and inner keys, answers carry recovered ones: both live in buffers that are wiped. Values are
//! cut out of answers as they came, since names and signatures are computed over the received bytes.

use tpm2_protocol::data::{TpmCc, TpmRh, TpmSt};
use zeroize::Zeroizing;

use super::fault::{ChipFault, ResponseCode};

/// What every TPM 2.0 accepts and answers at most (reference/tpm-attestation.md §2).
pub const FRAME_BYTES_MAX: usize = 4096;
pub const HEADER_BYTES: usize = 10;

/// Who authorises the use of a handle.
#[derive(Clone, Copy)]
pub enum Authorization<'a> {
    Password(&'a [u8]),
    /// A policy session, which ends with the command.
    Policy(u32),
}

/// Bytes in the TPM's order that are wiped afterwards. Never grows, so nothing is left behind where it was before.
pub struct Bytes {
    bytes: Zeroizing<Vec<u8>>,
    overflow: bool,
}

impl Bytes {
    pub fn new() -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(FRAME_BYTES_MAX)), overflow: false }
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        if bytes.len() > FRAME_BYTES_MAX - self.bytes.len() {
            self.overflow = true;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        self
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// A TPM2B: the length before the bytes.
    pub fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        match u16::try_from(bytes.len()) {
            Ok(length) => self.u16(length).raw(bytes),
            Err(_) => {
                self.overflow = true;
                self
            }
        }
    }

    pub fn finished(&self, what: &'static str) -> Result<&[u8], ChipFault> {
        if self.overflow { Err(ChipFault::TooLong { what }) } else { Ok(&self.bytes) }
    }
}

/// One command: handles, who authorises their use, parameters.
pub struct Command {
    code: TpmCc,
    handles: Bytes,
    sessions: Bytes,
    parameters: Bytes,
}

impl Command {
    /// The authorizations belong to the first handles, in order.
    pub fn new(code: TpmCc, handles: &[u32], authorizations: &[Authorization<'_>]) -> Self {
        let mut command = Self { code, handles: Bytes::new(), sessions: Bytes::new(), parameters: Bytes::new() };
        for handle in handles {
            command.handles.u32(*handle);
        }
        for authorization in authorizations {
            let (session, password) = match authorization {
                Authorization::Password(password) => (TpmRh::Pw as u32, *password),
                Authorization::Policy(session) => (*session, &[][..]),
            };
            // No nonce and no flags: a password has none, and a policy session of ours is used once.
            command.sessions.u32(session).sized(&[]).u8(0).sized(password);
        }
        command
    }

    pub fn code(&self) -> TpmCc {
        self.code
    }

    /// Where parameters are written.
    pub fn with(mut self, write: impl FnOnce(&mut Bytes)) -> Self {
        write(&mut self.parameters);
        self
    }

    pub fn frame(&self) -> Result<Bytes, ChipFault> {
        let name = name(self.code);
        let (handles, sessions) = (self.handles.finished(name)?, self.sessions.finished(name)?);
        let too_long = |_| ChipFault::TooLong { what: name };
        let mut body = Bytes::new();
        body.raw(handles);
        if !sessions.is_empty() {
            body.u32(u32::try_from(sessions.len()).map_err(too_long)?).raw(sessions);
        }
        let body = body.raw(self.parameters.finished(name)?).finished(name)?;
        let tag = if sessions.is_empty() { TpmSt::NoSessions } else { TpmSt::Sessions };
        let size = u32::try_from(HEADER_BYTES + body.len()).map_err(too_long)?;
        let mut frame = Bytes::new();
        frame.u16(tag as u16).u32(size).u32(self.code as u32).raw(body).finished(name)?;
        Ok(frame)
    }
}

/// What a command is called in messages.
pub fn name(code: TpmCc) -> &'static str {
    // Only the commands that `chip` sends; all others would be a mistake of ours.
    match code {
        TpmCc::ActivateCredential => "TPM2_ActivateCredential",
        TpmCc::CreatePrimary => "TPM2_CreatePrimary",
        TpmCc::EvictControl => "TPM2_EvictControl",
        TpmCc::FlushContext => "TPM2_FlushContext",
        TpmCc::GetCapability => "TPM2_GetCapability",
        TpmCc::Hmac => "TPM2_HMAC",
        TpmCc::HmacStart => "TPM2_HMAC_Start",
        TpmCc::Import => "TPM2_Import",
        TpmCc::Load => "TPM2_Load",
        TpmCc::NvRead => "TPM2_NV_Read",
        TpmCc::NvReadPublic => "TPM2_NV_ReadPublic",
        TpmCc::PcrRead => "TPM2_PCR_Read",
        TpmCc::PolicySecret => "TPM2_PolicySecret",
        TpmCc::Quote => "TPM2_Quote",
        TpmCc::ReadPublic => "TPM2_ReadPublic",
        TpmCc::SequenceComplete => "TPM2_SequenceComplete",
        TpmCc::SequenceUpdate => "TPM2_SequenceUpdate",
        TpmCc::StartAuthSession => "TPM2_StartAuthSession",
        _ => "a command",
    }
}

/// An answer that said *success*.
#[derive(Debug)]
pub struct Answer {
    frame: Frame,
    has_sessions: bool,
}

/// Bytes of an answer: wiped when dropped, and not shown.
pub struct Frame(pub Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({} bytes)", self.0.len())
    }
}

/// The length that a header promises, header included.
pub fn promised_length(header: &[u8]) -> Result<usize, ChipFault> {
    let mut reader = Reader(header);
    reader.u16()?;
    let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    if (HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length) {
        Ok(length)
    } else {
        Err(ChipFault::Answer { why: "its length is out of bounds" })
    }
}

impl Answer {
    /// Judges the header; the answer of a refusal is its code.
    pub fn parse(frame: Zeroizing<Vec<u8>>) -> Result<Result<Self, ResponseCode>, ChipFault> {
        if promised_length(&frame)? != frame.len() {
            return Err(ChipFault::Answer { why: "its length is not the one its header says" });
        }
        let mut reader = Reader(&frame);
        let tag = reader.u16()?;
        reader.u32()?;
        let code = reader.u32()?;
        if code != 0 {
            return Ok(Err(ResponseCode(code)));
        }
        let has_sessions = match TpmSt::try_from(tag) {
            Ok(TpmSt::Sessions) => true,
            Ok(TpmSt::NoSessions) => false,
            Ok(_) | Err(_) => return Err(ChipFault::Answer { why: "its tag is not one of TPM 2.0" }),
        };
        Ok(Ok(Self { frame: Frame(frame), has_sessions }))
    }

    /// The parameters of an answer without handles.
    pub fn parameters(&self) -> Result<Reader<'_>, ChipFault> {
        self.parameters_after(Reader(self.body()))
    }

    /// The handle and the parameters of an answer that has one.
    pub fn handle_and_parameters(&self) -> Result<(u32, Reader<'_>), ChipFault> {
        let mut reader = Reader(self.body());
        let handle = reader.u32()?;
        Ok((handle, self.parameters_after(reader)?))
    }

    fn body(&self) -> &[u8] {
        self.frame.0.get(HEADER_BYTES..).unwrap_or_default()
    }

    fn parameters_after<'a>(&self, mut reader: Reader<'a>) -> Result<Reader<'a>, ChipFault> {
        if !self.has_sessions {
            return Ok(reader);
        }
        let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
        Ok(Reader(reader.cut(length)?))
    }
}

/// Reads values off the front of an answer.
#[derive(Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn cut(&mut self, length: usize) -> Result<&'a [u8], ChipFault> {
        let (head, rest) =
            self.0.split_at_checked(length).ok_or(ChipFault::Answer { why: "it ends in the middle of a value" })?;
        self.0 = rest;
        Ok(head)
    }

    pub fn u8(&mut self) -> Result<u8, ChipFault> {
        Ok(self.cut(1)?.iter().fold(0, |_, byte| *byte))
    }

    pub fn u16(&mut self) -> Result<u16, ChipFault> {
        Ok(self.cut(2)?.iter().fold(0, |value, byte| (value << 8) | u16::from(*byte)))
    }

    pub fn u32(&mut self) -> Result<u32, ChipFault> {
        Ok(self.cut(4)?.iter().fold(0, |value, byte| (value << 8) | u32::from(*byte)))
    }

    /// What is inside a TPM2B.
    pub fn sized(&mut self) -> Result<&'a [u8], ChipFault> {
        let length = self.u16()?;
        self.cut(usize::from(length))
    }

    /// A TPM2B with its length.
    pub fn whole(&mut self) -> Result<&'a [u8], ChipFault> {
        let length = Reader(self.0).u16()?;
        self.cut(2 + usize::from(length))
    }

    pub fn end(self) -> Result<(), ChipFault> {
        if self.0.is_empty() { Ok(()) } else { Err(ChipFault::Answer { why: "it goes on where it should end" }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: &[u8]) -> Result<Result<Answer, ResponseCode>, ChipFault> {
        Answer::parse(Zeroizing::new(bytes.to_vec()))
    }

    #[test]
    fn commands_are_laid_out_as_the_specification_says() {
        let flush = Command::new(TpmCc::FlushContext, &[], &[]).with(|p| {
            p.u32(0x8000_0000);
        });
        let frame = flush.frame().unwrap();
        assert_eq!(frame.finished("").unwrap(), [0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65, 0x80, 0, 0, 0]);

        let password = [Authorization::Password(b"pw")];
        let load = Command::new(TpmCc::Load, &[0x8100_0001], &password).with(|p| {
            p.sized(&[7]).sized(&[]);
        });
        let expected: &[u8] = &[
            0x80, 2, 0, 0, 0, 34, 0, 0, 1, 0x57, 0x81, 0, 0, 1, 0, 0, 0, 11, 0x40, 0, 0, 9, 0, 0, 0, 0, 2, b'p', b'w',
            0, 1, 7, 0, 0,
        ];
        assert_eq!(load.frame().unwrap().finished("").unwrap(), expected);
    }

    #[test]
    fn a_command_that_does_not_fit_is_not_sent() {
        let fits = |length: usize| {
            let bytes = vec![0; length];
            let command = Command::new(TpmCc::Load, &[1], &[]).with(|p| {
                p.sized(&bytes);
            });
            command.frame().map(|frame| frame.finished("").map(<[u8]>::len))
        };
        assert_eq!(fits(FRAME_BYTES_MAX - 16), Ok(Ok(FRAME_BYTES_MAX)));
        assert_eq!(fits(FRAME_BYTES_MAX - 15).err(), Some(ChipFault::TooLong { what: "TPM2_Load" }));
        assert_eq!(fits(70_000).err(), Some(ChipFault::TooLong { what: "TPM2_Load" }));
    }

    #[test]
    fn answers_are_judged_before_they_are_read() {
        let with_sessions = [0x80, 2, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 9, 0xaa, 0xbb, 0xcc];
        let parsed = answer(&with_sessions).unwrap().unwrap();
        let mut parameters = parsed.parameters().unwrap();
        assert_eq!(parameters.sized().unwrap(), [9]);
        parameters.end().unwrap();

        let with_handle = [0x80, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0x80, 0, 0, 1, 0, 0];
        let parsed = answer(&with_handle).unwrap().unwrap();
        let (handle, mut parameters) = parsed.handle_and_parameters().unwrap();
        assert_eq!((handle, parameters.whole().unwrap()), (0x8000_0001, &[0, 0][..]));

        let refused = answer(&[0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1]).unwrap().err();
        assert_eq!(refused, Some(ResponseCode(0x101)));
    }

    #[test]
    fn broken_answers_are_refused() {
        for broken in [
            &[][..],
            &[0x80, 1, 0, 0],
            &[0x80, 1, 0, 0, 0, 9, 0, 0, 0],
            &[0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0],
            &[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0, 0],
            &[0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            &[0x00, 0xc4, 0, 0, 0, 10, 0, 0, 0, 0],
        ] {
            assert!(matches!(answer(broken), Err(ChipFault::Answer { .. })), "{broken:?}");
        }
        let short = answer(&[0x80, 2, 0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0, 9]).unwrap().unwrap();
        assert!(short.parameters().is_err());
        for value in [&[][..], &[0], &[0, 2, 1]] {
            assert!(Reader(value).sized().is_err() && Reader(value).whole().is_err(), "{value:?}");
        }
        assert!(Reader(&[1]).end().is_err());
    }
}
