#include "backends/kafka/errors.h"

#include "base/text.h"

namespace prism::kafka {

Error topic_not_found(std::string_view topic) {
  return Error{Code::not_found,
               "TOPIC_NOT_FOUND",
               "there is no topic \"" + shown(topic) + "\"",
               "create it, or check its name",
               Retry::never,
               {},
               {{"topic", std::string(topic)}}};
}

bool is_transient(rd_kafka_resp_err_t code) noexcept {
  switch (code) {
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__RESOLVE:
    case RD_KAFKA_RESP_ERR__WAIT_COORD:
    case RD_KAFKA_RESP_ERR__WAIT_CACHE:
    case RD_KAFKA_RESP_ERR__IN_PROGRESS:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__RETRY:
    case RD_KAFKA_RESP_ERR__PREV_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
    case RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
    case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_COORDINATOR:
    case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS:
    case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
    case RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_NOT_CONTROLLER:
    case RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR:
    case RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT:
      return true;
    default:
      return false;
  }
}

bool is_fenced(rd_kafka_resp_err_t code) noexcept {
  switch (code) {
    case RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID:
    case RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION:
    case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
    case RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST:
      return true;
    default:
      return false;
  }
}

Error error_of(const client::Peer& peer, rd_kafka_resp_err_t code, std::string_view detail, Retry retry) {
  std::string why = made_visible(detail.empty() ? std::string_view(rd_kafka_err2str(code)) : detail);
  switch (code) {
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
      return {Code::not_found,
              "TOPIC_NOT_FOUND",
              "the topic is not there any more: " + why,
              "create it, or check its name",
              Retry::never,
              {},
              {}};
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
      return {Code::invalid_argument,
              "INVALID_TOPIC",
              "Kafka does not take this topic: " + why,
              "choose another name",
              Retry::never,
              {},
              {}};
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
      return {Code::invalid_argument,
              "RECORD_TOO_LARGE",
              "the broker does not take a record of this size: " + why,
              "add claim-check to the namespace, or send less",
              Retry::never,
              {},
              {}};
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
      return {Code::resource_exhausted,
              "LOG_FULL",
              "too many bytes wait to be appended to " + peer.text(),
              "send less at once, or enlarge `buffer_size`",
              Retry::safe,
              std::chrono::milliseconds(100),
              {{"backend", peer.backend}}};
    case RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED:
      return client::overloaded(peer, why, std::chrono::milliseconds(1'000));
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
    case RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE:
      return client::authentication_failed(peer, why);
    case RD_KAFKA_RESP_ERR__SSL:
      return client::tls_failed(peer, why);
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
      return client::permission_denied(peer, why, "grant Read, Write, Describe and Create on the topic");
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
      return client::permission_denied(peer, why, "grant Read on the group, and on groups that begin with __prism");
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_SECURITY_DISABLED:
      return client::permission_denied(peer, why);
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
      return client::timed_out(peer, why, retry);
    case RD_KAFKA_RESP_ERR__FATAL:  // of a producer that is about to be replaced
      return client::unavailable(peer, why, retry);
    case RD_KAFKA_RESP_ERR__DESTROY:
    case RD_KAFKA_RESP_ERR__PURGE_QUEUE:
    case RD_KAFKA_RESP_ERR__PURGE_INFLIGHT:
      return {Code::unavailable, "LOG_CLOSED", "the log has been closed", "", retry, {}, {}};
    default:
      break;
  }
  if (is_transient(code)) return client::unavailable(peer, why, retry);
  return {Code::failed_precondition,
          "BACKEND_REFUSED",
          peer.text() + " refuses it: " + why,
          "the message says what the brokers do not take",
          retry == Retry::unknown_outcome ? retry : Retry::never,
          {},
          {{"backend", peer.backend}, {"code", rd_kafka_err2name(code)}}};
}

}  // namespace prism::kafka
