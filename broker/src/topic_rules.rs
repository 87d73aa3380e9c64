//! What the operator allows on which topics (`[[topic]]`): whether a publish may be retained, its QoS and its size.
//! Asked once for each publish and will; never by a subscription.

use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::Refusal;
use tidegate_protocol::topic::{Topic, TopicFilter};

use crate::sys;

/// One block of the operator's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRule {
    /// The topics that it is about.
    pub filter: TopicFilter,
    /// `retain`; `None` asks nothing, as `Allow`, but opens no topic of the broker's own.
    pub retain: Option<RetainRule>,
    /// `qos_max`: of deliveries. The publisher still gets the acknowledgement of its own QoS.
    pub qos_max: Option<QoS>,
    /// `max_payload`.
    pub payload_bytes_max: Option<usize>,
}

/// Whether a publish may be retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainRule {
    /// If the publisher asks for it.
    Allow,
    /// Always, as if the publisher had asked for it.
    Force,
    /// A publish that asks for it is refused.
    Deny,
}

/// All rules in the operator's order; the first that matches counts. A lookup holds a topic against each filter, so
/// the config bounds their number. Without rules it costs nothing.
#[derive(Debug, Default)]
pub struct TopicRules {
    rules: Box<[TopicRule]>,
    allows_client_state: bool,
}

impl TopicRules {
    /// In this order.
    #[must_use]
    pub fn new(rules: Vec<TopicRule>) -> Self {
        let opens = |rule: &TopicRule| rule.allows_retain() && sys::is_for_client_states(&rule.filter);
        Self { allows_client_state: rules.iter().any(opens), rules: rules.into() }
    }

    /// The first rule for a topic.
    #[must_use]
    pub fn rule_of(&self, topic: &Topic) -> Option<&TopicRule> {
        self.rules.iter().find(|rule| rule.filter.matches(topic))
    }

    /// Whether what a client wants to publish, or leaves as its will, may be published.
    ///
    /// # Errors
    ///
    /// [`Refusal::Forbidden`] for a retained publish where the rule denies it, [`Refusal::Quota`] for a payload
    /// above the rule's limit.
    pub fn check(&self, publication: &Publication) -> Result<Option<&TopicRule>, Refusal> {
        let Some(rule) = self.rule_of(&publication.topic) else { return Ok(None) };
        if publication.retain && rule.retain == Some(RetainRule::Deny) {
            return Err(Refusal::Forbidden("nothing is retained on this topic"));
        }
        if let Some(limit) = rule.payload_bytes_max.filter(|limit| publication.payload.len() > *limit) {
            return Err(Refusal::Quota { name: "topic.max_payload", limit });
        }
        Ok(Some(rule))
    }

    /// The same, and makes the publication what the rule wants it to be.
    ///
    /// # Errors
    ///
    /// As [`TopicRules::check`]; the publication is as it was.
    pub fn apply(&self, publication: &mut Publication) -> Result<(), Refusal> {
        let Some(rule) = self.check(publication)? else { return Ok(()) };
        publication.retain |= rule.retain == Some(RetainRule::Force);
        publication.qos = rule.qos_max.map_or(publication.qos, |qos_max| publication.qos.min(qos_max));
        Ok(())
    }

    /// Whether the states of some clients are published at all; known from the start.
    #[must_use]
    pub const fn allows_client_state(&self) -> bool {
        self.allows_client_state
    }

    /// [`sys::client_state`], if the rule for its topic allows it.
    #[must_use]
    pub fn client_state(&self, id: &str, is_connected: bool) -> Option<Publication> {
        if !self.allows_client_state {
            return None;
        }
        let state = sys::client_state(id, is_connected)?;
        self.rule_of(&state.topic)?.allows_retain().then_some(state)
    }
}

impl TopicRule {
    fn allows_retain(&self) -> bool {
        matches!(self.retain, Some(RetainRule::Allow | RetainRule::Force))
    }
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::topic::TopicLimits;

    use super::*;

    fn rule(filter: &str) -> TopicRule {
        let filter = TopicFilter::parse(filter, &TopicLimits::STANDARD).unwrap();
        TopicRule { filter, retain: None, qos_max: None, payload_bytes_max: None }
    }

    fn publication(topic: &str, qos: QoS, retain: bool) -> Publication {
        let topic = Topic::parse(topic, &TopicLimits::STANDARD).unwrap();
        let mut publication = Publication::new(topic, "12345".into());
        (publication.qos, publication.retain) = (qos, retain);
        publication
    }

    /// A publish at QoS 1 with five bytes of payload, and what becomes of its QoS and flag.
    fn check(rules: &TopicRules, topic: &str, retain: bool, expected: Result<(QoS, bool), &str>) {
        let mut said = publication(topic, QoS::AtLeastOnce, retain);
        let outcome = rules.apply(&mut said).map_err(|refusal| refusal.to_string());
        let outcome = outcome.map(|()| (said.qos, said.retain));
        assert_eq!(outcome, expected.map_err(str::to_owned), "{topic} with retain {retain}");
        if outcome.is_err() {
            assert_eq!((said.qos, said.retain), (QoS::AtLeastOnce, retain), "a refused one is as it was");
        }
    }

    #[test]
    fn the_first_rule_that_matches_counts_alone() {
        let rules = TopicRules::new(vec![
            TopicRule { payload_bytes_max: Some(5), ..rule("a/free") },
            TopicRule { retain: Some(RetainRule::Deny), ..rule("a/+") },
            TopicRule { retain: Some(RetainRule::Force), qos_max: Some(QoS::AtMostOnce), ..rule("b/#") },
            TopicRule { payload_bytes_max: Some(4), ..rule("#") },
        ]);
        let (at_most, at_least) = (QoS::AtMostOnce, QoS::AtLeastOnce);
        check(&rules, "a/free", true, Ok((at_least, true)));
        check(&rules, "a/x", false, Ok((at_least, false)));
        check(&rules, "a/x", true, Err("not allowed: nothing is retained on this topic"));
        check(&rules, "b", false, Ok((at_most, true)));
        check(&rules, "b/c", true, Ok((at_most, true)));
        check(&rules, "c", false, Err("the limit topic.max_payload = 4 is reached"));
    }

    #[test]
    fn without_a_rule_nothing_is_changed() {
        check(&TopicRules::default(), "a", true, Ok((QoS::AtLeastOnce, true)));
        assert!(!TopicRules::default().allows_client_state());
    }

    #[test]
    fn a_higher_maximum_raises_no_qos() {
        let rules = TopicRules::new(vec![TopicRule { qos_max: Some(QoS::ExactlyOnce), ..rule("#") }]);
        check(&rules, "a", false, Ok((QoS::AtLeastOnce, false)));
    }

    #[test]
    fn states_of_clients_are_open_where_a_rule_for_them_says_so() {
        let (deny, allow) = (Some(RetainRule::Deny), Some(RetainRule::Allow));
        for (filters, is_open, is_open_for_a) in [
            (vec![("#", allow)], false, false),
            (vec![("+/broker/clients/+/state", allow)], false, false),
            (vec![("$SYS/broker/clients/+/state", allow)], true, true),
            (vec![("$SYS/broker/clients/+/state", Some(RetainRule::Force))], true, true),
            (vec![("$SYS/broker/clients/+/state", None)], false, false),
            (vec![("$SYS/broker/clients/+/state", deny)], false, false),
            (vec![("$SYS/#", allow)], true, true),
            (vec![("$SYS/broker/clients/b/state", allow)], true, false),
            (vec![("$SYS/broker/clients/a/state", deny), ("$SYS/#", allow)], true, false),
        ] {
            let rules = filters.iter().map(|(filter, retain)| TopicRule { retain: *retain, ..rule(filter) });
            let rules = TopicRules::new(rules.collect());
            let state = rules.client_state("a", true);
            assert_eq!(
                (rules.allows_client_state(), state.is_some()),
                (is_open, is_open_for_a),
                "{filters:?}"
            );
            assert!(state.is_none_or(|state| state.topic.as_str() == "$SYS/broker/clients/a/state"));
        }
    }
}
