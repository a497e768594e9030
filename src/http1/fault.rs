//! Why a head is refused. Each reason has one word, which is the log field and the metric label.

/// A fault in a field section (RFC 9112 section 5), of a head or of trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldFault {
    /// A line ended by LF alone (RFC 9112 section 2.2).
    BareLf,
    /// CR without LF (RFC 9112 section 2.2).
    BareCr,
    /// White space before the first field line (RFC 9112 section 2.2).
    SpaceBeforeFirst,
    /// A line that continues the previous one (RFC 9112 section 5.2).
    ObsFold,
    /// White space between name and colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// A line that starts with the colon.
    EmptyName,
    /// A byte in the name that no token has, or a line without a colon (RFC 9110 section 5.1).
    BadName,
    /// A control byte in the value (RFC 9110 section 5.5).
    BadValue,
    /// More field lines than the limit.
    TooMany,
    /// A longer field line than the limit.
    TooLarge,
}

impl FieldFault {
    /// The status that answers it in a request: 400, or 431 for a limit.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TooMany | Self::TooLarge => 431,
            _ => 400,
        }
    }

    /// The reason's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::SpaceBeforeFirst => "space_before_first_field",
            Self::ObsFold => "obs_fold",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::EmptyName => "empty_field_name",
            Self::BadName => "bad_field_name",
            Self::BadValue => "bad_field_value",
            Self::TooMany => "too_many_fields",
            Self::TooLarge => "field_too_large",
        }
    }
}

/// Why a request head is refused. The connection is closed after every one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestFault {
    /// More than two empty lines before the request line (RFC 9112 section 2.2).
    TooManyEmptyLines,
    /// LF alone ends the request line or an empty line before it (RFC 9112 section 2.2).
    BareLf,
    /// CR without LF in or before the request line (RFC 9112 section 2.2).
    BareCr,
    /// The method is not a token, or something stands before it (RFC 9112 section 3.1).
    BadMethod,
    /// A method longer than any that exists (RFC 9112 section 3): 501.
    MethodTooLong,
    /// A second space in the request line, or an empty target (RFC 9112 section 3).
    BadSpacing,
    /// A control or non-ASCII byte in the target (RFC 9112 section 3.2).
    BadTargetByte,
    /// A fragment in the target (RFC 9112 section 3.2).
    FragmentInTarget,
    /// None of the four forms, or not the one that the method takes (RFC 9112 section 3.2).
    BadTargetForm,
    /// An absolute-form target whose scheme is neither `http` nor `https`.
    BadScheme,
    /// An invalid authority, or one with user information, in the target (RFC 9110 section 4.2.4).
    BadTargetAuthority,
    /// A longer target than the limit: 414.
    TargetTooLong,
    /// No version: an HTTP/0.9 request.
    MissingVersion,
    /// What follows the target is not `HTTP/` digit `.` digit CRLF (RFC 9112 section 2.3).
    BadVersion,
    /// A major version other than 1 (RFC 9110 section 15.6.6): 505.
    UnsupportedVersion,
    /// A fault in the field section.
    Field(FieldFault),
    /// A longer head than the limit: 431.
    HeadTooLarge,
    /// HTTP/1.1 without Host (RFC 9112 section 3.2).
    MissingHost,
    /// More than one Host line (RFC 9112 section 3.2).
    RepeatedHost,
    /// Host is empty or not `host [":" port]` (RFC 9112 section 3.2).
    BadHost,
    /// The target names another authority than Host does (RFC 9112 section 3.2.2).
    AuthorityMismatch,
    /// More than one Content-Length line (RFC 9112 section 6.3).
    RepeatedContentLength,
    /// Content-Length is not one decimal number of 64 bits (RFC 9112 section 6.3).
    BadContentLength,
    /// Transfer-Encoding and Content-Length together (RFC 9112 section 6.1).
    LengthAndCoding,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1).
    CodingInHttp10,
    /// Transfer-Encoding does not end in exactly one `chunked` (RFC 9112 section 6.3).
    BadCoding,
    /// Well-formed codings before `chunked` (RFC 9112 section 6.1): 501.
    UnsupportedCoding,
    /// A field that has no place in HTTP/2 (RFC 9113 section 8.2.2).
    ConnectionField,
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1): 417.
    UnknownExpectation,
    /// The two parsers disagree about the head. A bug of ours, met by refusing.
    Disagreement,
}

impl RequestFault {
    /// The status to answer with before the connection is closed.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Field(fault) => fault.status(),
            Self::TargetTooLong => 414,
            Self::UnknownExpectation => 417,
            Self::HeadTooLarge => 431,
            Self::MethodTooLong | Self::UnsupportedCoding => 501,
            Self::UnsupportedVersion => 505,
            _ => 400,
        }
    }

    /// The reason's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooManyEmptyLines => "too_many_empty_lines",
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::BadMethod => "bad_method",
            Self::MethodTooLong => "method_too_long",
            Self::BadSpacing => "bad_spacing",
            Self::BadTargetByte => "bad_target_byte",
            Self::FragmentInTarget => "fragment_in_target",
            Self::BadTargetForm => "bad_target_form",
            Self::BadScheme => "bad_scheme",
            Self::BadTargetAuthority => "bad_target_authority",
            Self::TargetTooLong => "target_too_long",
            Self::MissingVersion => "missing_version",
            Self::BadVersion => "bad_version",
            Self::UnsupportedVersion => "unsupported_version",
            Self::Field(fault) => fault.as_str(),
            Self::HeadTooLarge => "head_too_large",
            Self::MissingHost => "missing_host",
            Self::RepeatedHost => "repeated_host",
            Self::BadHost => "bad_host",
            Self::AuthorityMismatch => "authority_mismatch",
            Self::RepeatedContentLength => "repeated_content_length",
            Self::BadContentLength => "bad_content_length",
            Self::LengthAndCoding => "length_and_coding",
            Self::CodingInHttp10 => "coding_in_http10",
            Self::BadCoding => "bad_coding",
            Self::UnsupportedCoding => "unsupported_coding",
            Self::ConnectionField => "connection_field",
            Self::UnknownExpectation => "unknown_expectation",
            Self::Disagreement => "parser_disagreement",
        }
    }
}

/// Why a response head is refused: the answer is 502 and the connection is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFault {
    /// LF alone, or CR alone, in the status line (RFC 9112 section 2.2).
    BadLineEnd,
    /// The line does not start with `HTTP/` digit `.` digit SP (RFC 9112 section 4).
    BadVersion,
    /// A major version other than 1.
    UnsupportedVersion,
    /// Not three digits from 100 on, or not followed by SP or the line's end.
    BadStatus,
    /// A control byte in the reason phrase (RFC 9112 section 4).
    BadReason,
    /// A fault in the field section.
    Field(FieldFault),
    /// A longer head than the limit.
    HeadTooLarge,
    /// 101, which we never ask for (RFC 9110 section 15.2.2).
    SwitchingProtocols,
    /// An interim response that announces a body (RFC 9110 section 15.2): should it follow,
    /// it would be taken for the final response.
    InterimWithBody,
    /// More than one Content-Length line, equal or not (RFC 9112 section 6.3).
    RepeatedContentLength,
    /// Content-Length is not one decimal number of 64 bits (RFC 9112 section 6.3).
    BadContentLength,
    /// Transfer-Encoding and Content-Length together (RFC 9112 section 6.1).
    LengthAndCoding,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1).
    CodingInHttp10,
    /// Any coding but a single `chunked`: we never send TE (RFC 9112 section 7.4).
    BadCoding,
    /// The two parsers disagree about the head. A bug of ours, met by refusing.
    Disagreement,
}

impl ResponseFault {
    /// The reason's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadLineEnd => "bad_line_end",
            Self::BadVersion => "bad_version",
            Self::UnsupportedVersion => "unsupported_version",
            Self::BadStatus => "bad_status",
            Self::BadReason => "bad_reason",
            Self::Field(fault) => fault.as_str(),
            Self::HeadTooLarge => "head_too_large",
            Self::SwitchingProtocols => "switching_protocols",
            Self::InterimWithBody => "interim_with_body",
            Self::RepeatedContentLength => "repeated_content_length",
            Self::BadContentLength => "bad_content_length",
            Self::LengthAndCoding => "length_and_coding",
            Self::CodingInHttp10 => "coding_in_http10",
            Self::BadCoding => "bad_coding",
            Self::Disagreement => "parser_disagreement",
        }
    }
}
