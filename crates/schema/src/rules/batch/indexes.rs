//! Lists of indexes such as `1,3-5,7`: how many there are, and what is wrong with them.

/// An interval, or why it is none.
fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let number = |text: &str| {
        let value = text.parse::<i64>().map_err(|_| {
            format!("cannot convert string to integer for index: {}", meta::quote(text))
        })?;
        if value >= completions {
            return Err(format!("too large index: {}", meta::quote(text)));
        }
        Ok(value)
    };
    let mut parts = text.split('-');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts \
             separated by '-'",
            meta::quote(text)
        ));
    }
    let low = number(first)?;
    let Some(second) = second else { return Ok((low, low)) };
    let high = number(second)?;
    if low >= high {
        return Err(format!("non-increasing order, previous: {low}, current: {high}"));
    }
    Ok((low, high))
}

/// How many indexes a list has.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total) = (None, 0);
    for part in text.split(',') {
        let (low, high) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= low) {
            return Err(format!("non-increasing order, previous: {last}, current: {low}"));
        }
        total += high - low + 1;
        last = Some(high);
    }
    Ok(total)
}

/// The first index that two lists share; intervals that are none are passed over.
pub(super) fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let parse = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    if completed.is_empty() || failed.is_empty() {
        return None;
    }
    let (completed, failed) = (parse(completed), parse(failed));
    let (mut at, mut other) = (0, 0);
    while let (Some(done), Some(lost)) = (completed.get(at), failed.get(other)) {
        if done.0 <= lost.1 && lost.0 <= done.1 {
            return Some(done.0.max(lost.0));
        }
        if done.0 <= lost.0 { at += 1 } else { other += 1 }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_indexes() {
        assert_eq!(count("", 3), Ok(0));
        assert_eq!(count("1,3-5,7", 8), Ok(5));
        for (text, problem) in [
            ("1,1", "non-increasing order, previous: 1, current: 1"),
            ("3-2", "non-increasing order, previous: 3, current: 2"),
            ("8", "too large index: \"8\""),
            ("a", "cannot convert string to integer for index: \"a\""),
        ] {
            assert_eq!(count(text, 8), Err(problem.to_owned()), "{text}");
        }
        assert!(count("1-2-3", 8).unwrap_err().contains("at most two parts"));
        assert_eq!(overlap("0-3,6", "4,5", 8), None);
        assert_eq!(overlap("0-3,6", "4,6-7", 8), Some(6));
    }
}
