//! Arrays as clients send them.

use datafusion::arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use pgwire::api::Type;

use super::types::parameter_type;

/// The elements of a one-dimensional array in text form, such as `{1,NULL,"a b"}`; `None` if it is malformed.
pub(crate) fn parse(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    let mut chars = inner.chars().peekable();
    if inner.bytes().all(|b| b.is_ascii_whitespace()) {
        return Some(elements);
    }
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let element = if chars.next_if_eq(&'"').is_some() {
            let quoted = quoted(&mut chars)?;
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            Some(quoted)
        } else {
            bare(&mut chars)?
        };
        elements.push(element);
        match chars.next() {
            None => return Some(elements),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn quoted(chars: &mut Chars<'_>) -> Option<String> {
    let mut element = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(element),
            '\\' => element.push(chars.next()?),
            c => element.push(c),
        }
    }
}

/// An element without quotes, up to the next comma: `Some(None)` is NULL.
fn bare(chars: &mut Chars<'_>) -> Option<Option<String>> {
    let mut element = String::new();
    let mut escaped = false;
    while let Some(c) = chars.next_if(|c| *c != ',') {
        match c {
            '{' | '}' | '"' => return None,
            '\\' => {
                escaped = true;
                element.push(chars.next()?);
            }
            c => element.push(c),
        }
    }
    let trimmed = element.trim_end_matches(|c: char| c.is_ascii_whitespace());
    let element = if escaped { element } else { trimmed.to_owned() };
    if element.is_empty() {
        return None;
    }
    let is_null = !escaped && element.eq_ignore_ascii_case("null");
    Some((!is_null).then_some(element))
}

/// A one-dimensional array in binary form, its elements read by `element`.
pub(crate) fn binary(
    bytes: &[u8],
    kind: &Type,
    element: fn(&[u8], &Type) -> Option<ScalarValue>,
) -> Option<ScalarValue> {
    let DataType::List(item) = parameter_type(kind.oid())? else {
        return None;
    };
    let mut rest = bytes;
    let mut int = || {
        let (four, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        Some(i32::from_be_bytes(*four))
    };
    let dimensions = int()?;
    let _has_nulls = int()?;
    let element_type = Type::from_oid(int()?.cast_unsigned())?;
    if dimensions == 0 {
        return Some(ScalarValue::List(ScalarValue::new_list(&[], item.data_type(), true)));
    }
    let count = usize::try_from(int()?).ok()?;
    let _lower_bound = int()?;
    if dimensions != 1 || count > bytes.len() {
        return None;
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let (four, after) = rest.split_first_chunk::<4>()?;
        let size = i32::from_be_bytes(*four);
        rest = after;
        items.push(match usize::try_from(size) {
            Ok(size) => {
                let (value, after) = rest.split_at_checked(size)?;
                rest = after;
                let strict = datafusion::arrow::compute::CastOptions { safe: false, ..Default::default() };
                element(value, &element_type)?.cast_to_with_options(item.data_type(), &strict).ok()?
            }
            Err(_) => ScalarValue::try_new_null(item.data_type()).ok()?,
        });
    }
    rest.is_empty().then(|| ScalarValue::List(ScalarValue::new_list(&items, item.data_type(), true)))
}

#[cfg(test)]
mod tests {
    use super::super::text::array_element;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn elements_are_split_and_unquoted() {
        let elements = parse(r#"{1, NULL ,"NULL","a\"b, c\\",x y}"#).unwrap();
        let expected = [Some("1"), None, Some("NULL"), Some("a\"b, c\\"), Some("x y")];
        assert_eq!(elements.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        assert_eq!(parse("{}"), Some(vec![]));
        for malformed in ["", "{", "1,2", "{1,}", "{\"a}", "{{1},{2}}", "{\"a\"b}"] {
            assert_eq!(parse(malformed), None, "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(elements in proptest::collection::vec(".{0,8}", 1..5)) {
            let mut out = b"{".to_vec();
            for (i, element) in elements.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                array_element(&mut out, element.as_bytes());
            }
            out.push(b'}');
            let read = parse(&String::from_utf8(out).unwrap()).unwrap();
            prop_assert_eq!(read, elements.into_iter().map(Some).collect::<Vec<_>>());
        }
    }
}
