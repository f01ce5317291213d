// Without a server: signatures, documents, errors, options.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/s3/checksum.h"
#include "backends/s3/client.h"
#include "backends/s3/object_meta.h"
#include "base/crc32c.h"

namespace prism::s3 {
namespace {

using testing::HasSubstr;

constexpr std::string_view kNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

std::string header(const HeaderList& headers, std::string_view name) {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return "<none>";
}

std::string signature(const HeaderList& headers) {
  const std::string text = header(headers, "authorization");
  return text.substr(text.find("Signature=") + 10);
}

// AWS's Signature Version 4 test suite: the service is "service", 2015-08-30T12:36:00Z.
TEST(Signature, IsThatOfThePublishedSuite) {
  const Signer signer({"AKIDEXAMPLE", config::Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), {}}, "us-east-1",
                      "service");
  const WallTime at(std::chrono::seconds(1'440'938'160));
  const auto sign = [&](std::string_view method, const Query& query, HeaderList more = {}) {
    HeaderList headers{{"host", "example.amazonaws.com"}};
    for (auto& one : more) headers.push_back(std::move(one));
    signer.sign(method, "/", canonical_query(query), headers, kNothing, at);
    return headers;
  };
  EXPECT_EQ(header(sign("GET", {}), "authorization"),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            "SignedHeaders=host;x-amz-date, "
            "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
  EXPECT_EQ(signature(sign("POST", {})), "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
  EXPECT_EQ(signature(sign("GET", {{"Param2", "value2"}, {"Param1", "value1"}})),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
  EXPECT_EQ(signature(sign("GET", {}, {{"my-header1", " value1"}, {"my-header2", " \"a   b   c\""}})),
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
}

// The examples of the Amazon S3 API Reference, "Signature Calculations for the Authorization Header".
TEST(Signature, IsThatOfTheExamplesOfS3) {
  const Signer signer({"AKIAIOSFODNN7EXAMPLE", config::Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), {}},
                      "us-east-1");
  const WallTime at(std::chrono::seconds(1'369'353'600));
  const auto sign = [&](std::string_view method, std::string_view path, const Query& query, std::string_view payload,
                        HeaderList more) {
    HeaderList headers{{"host", "examplebucket.s3.amazonaws.com"}, {"x-amz-content-sha256", std::string(payload)}};
    for (auto& one : more) headers.push_back(std::move(one));
    signer.sign(method, uri_encode(path, true), canonical_query(query), headers, payload, at);
    return signature(headers);
  };
  EXPECT_EQ(sign("GET", "/test.txt", {}, kNothing, {{"range", "bytes=0-9"}}),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  const std::string payload = hex(sha256("Welcome to Amazon S3."));
  EXPECT_EQ(payload, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
  EXPECT_EQ(sign("PUT", "/test$file.text", {}, payload,
                 {{"date", "Fri, 24 May 2013 00:00:00 GMT"}, {"x-amz-storage-class", "REDUCED_REDUNDANCY"}}),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
  EXPECT_EQ(sign("GET", "/", {{"lifecycle", ""}}, kNothing, {}),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  EXPECT_EQ(sign("GET", "/", {{"prefix", "J"}, {"max-keys", "2"}}, kNothing, {}),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(Signature, SaysTheTokenOfASession) {
  const Signer signer({"id", config::Secret("key"), config::Secret("the-token")}, "us-east-1");
  HeaderList headers{{"host", "h"}};
  signer.sign("GET", "/", "", headers, kNothing, wall_now());
  EXPECT_EQ(header(headers, "x-amz-security-token"), "the-token");
  EXPECT_THAT(header(headers, "authorization"), HasSubstr("SignedHeaders=host;x-amz-date;x-amz-security-token"));
}

TEST(Encoding, OfPathsAndQueries) {
  EXPECT_EQ(uri_encode("a/b c=d:e~f_g-h.i", true), "a/b%20c%3Dd%3Ae~f_g-h.i");
  EXPECT_EQ(uri_encode("a/b", false), "a%2Fb");
  EXPECT_EQ(uri_encode("\xc3\xa4", true), "%C3%A4");
  EXPECT_EQ(canonical_query({{"uploads", ""}, {"a b", "c/d"}, {"a", "z"}, {"a", "y"}}), "a=y&a=z&a%20b=c%2Fd&uploads=");
}

TEST(Checksum, IsWrittenAsS3HasIt) {
  EXPECT_EQ(checksum_text(crc32c(0, "123456789")), "4waSgw==");  // e3069283
  EXPECT_EQ(parse_checksum("4waSgw=="), 0xe3069283U);
  EXPECT_EQ(parse_checksum("4waSgw==-3"), std::nullopt);  // of the checksums of three parts
  EXPECT_EQ(parse_checksum(""), std::nullopt);
}

TEST(Documents, ListsAreRead) {
  const auto page = read_list(
      R"(<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><EncodingType>url</EncodingType>
<IsTruncated>true</IsTruncated><NextContinuationToken>t==</NextContinuationToken>
<Contents><Key>a%2Fb+c%0A</Key><LastModified>2009-10-12T17:50:30.250Z</LastModified><ETag>&quot;e1&quot;</ETag><Size>5000000000</Size></Contents>
<Contents><Key>+</Key><LastModified>2009-10-12T17:50:30Z</LastModified><ETag>"e2"</ETag><Size>0</Size></Contents></ListBucketResult>)");
  ASSERT_TRUE(page);
  ASSERT_EQ(page->objects.size(), 2U);
  EXPECT_EQ(page->objects[0].key, "a/b c\n");
  EXPECT_EQ(page->objects[0].etag, "e1");
  EXPECT_EQ(page->objects[0].size, 5'000'000'000U);
  EXPECT_EQ(page->objects[0].modified, WallTime(std::chrono::microseconds(1'255'369'830'250'000)));
  EXPECT_EQ(page->objects[1].key, " ");
  EXPECT_EQ(page->continuation, "t==");
  EXPECT_FALSE(read_list("<html></html>"));
  EXPECT_FALSE(read_list("no xml"));
  EXPECT_FALSE(read_list(""));
}

TEST(Documents, AreWritten) {
  EXPECT_EQ(
      write_parts({{"e1", 0xe3069283U}}, true),
      R"(<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Part><ChecksumCRC32C>4waSgw==</ChecksumCRC32C><ETag>"e1"</ETag><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>)");
  EXPECT_THAT(write_delete({"a&b<c>"}), HasSubstr("<Key>a&amp;b&lt;c&gt;</Key>"));
}

TEST(Documents, ARuleOfTheLifeCycleLeavesOthersAlone) {
  const LifecycleRule mine{
      .id = "prism", .prefix = "claim-checks/", .expire_after_days = 7, .abort_uploads_after_days = 2};
  const auto fresh = with_rule("", mine);
  ASSERT_TRUE(fresh);
  EXPECT_EQ(read_lifecycle(*fresh), std::vector<LifecycleRule>{mine});
  const std::string others =
      R"(<LifecycleConfiguration><Rule><ID>other</ID><Status>Enabled</Status><Filter><And><Prefix>x</Prefix><Tag><Key>k</Key><Value>v</Value></Tag></And></Filter><Transition><Days>3</Days></Transition></Rule><Rule><ID>prism</ID><Prefix>old</Prefix></Rule></LifecycleConfiguration>)";
  const auto merged = with_rule(others, mine);
  ASSERT_TRUE(merged);
  EXPECT_THAT(*merged, HasSubstr("<Tag><Key>k</Key><Value>v</Value></Tag>"));
  EXPECT_THAT(*merged, HasSubstr("<Transition><Days>3</Days></Transition>"));
  EXPECT_THAT(*merged, Not(HasSubstr("old")));
  EXPECT_EQ(read_lifecycle(*merged)->size(), 2U);
}

TEST(Metadata, ComesBackWhateverItIs) {
  PutOptions options{.content_type = "video/mp4",
                     .metadata = {{"plain", "a b"},
                                  {"empty", ""},
                                  {"Caps", "1"},
                                  {"umlaut", "\xc3\xa4"},
                                  {"\xc3\xa4", "x"},
                                  {"spaces", " a  b "},
                                  {"prism-own", "1"},
                                  {"q", "=?UTF-8?B?YQ==?="}}};
  const auto headers = meta_headers(options);
  ASSERT_TRUE(headers) << headers.error().describe();
  for (const auto& [name, value] : *headers) {
    EXPECT_THAT(name, testing::MatchesRegex("[a-z0-9-]+"));
    EXPECT_TRUE(std::ranges::all_of(value, [](char c) { return c >= 0x20 && c < 0x7f; })) << value;
  }
  const Stored stored = stored_of("k", HttpHead{200, *headers});
  EXPECT_EQ(stored.info.metadata, options.metadata);
  EXPECT_EQ(stored.info.content_type, "video/mp4");
  EXPECT_FALSE(stored.checksum);
  options.metadata["big"] = std::string(2000, 'x');
  EXPECT_EQ(meta_headers(options).error().reason, "INVALID_METADATA");
}

TEST(Errors, AreTranslated) {
  const client::Peer peer{"files", "S3", "s3.example.com"};
  const auto error = [&](std::string code, int status = 400) {
    return error_of({.status = status, .code = std::move(code), .message = "words", .region = {}}, {peer, "b", "k"});
  };
  const struct {
    const char* code;
    Code expected;
    const char* reason;
    Retry retry;
  } cases[] = {
      {"NoSuchKey", Code::not_found, "OBJECT_NOT_FOUND", Retry::never},
      {"NoSuchBucket", Code::failed_precondition, "BUCKET_MISSING", Retry::never},
      {"NoSuchUpload", Code::aborted, "UPLOAD_ABORTED", Retry::never},
      {"AccessDenied", Code::permission_denied, "BACKEND_PERMISSION_DENIED", Retry::never},
      {"InvalidAccessKeyId", Code::failed_precondition, "BACKEND_AUTHENTICATION_FAILED", Retry::never},
      {"SignatureDoesNotMatch", Code::failed_precondition, "BACKEND_AUTHENTICATION_FAILED", Retry::never},
      {"ExpiredToken", Code::failed_precondition, "BACKEND_AUTHENTICATION_FAILED", Retry::never},
      {"RequestTimeTooSkewed", Code::failed_precondition, "BACKEND_CLOCK_SKEW", Retry::never},
      {"PermanentRedirect", Code::failed_precondition, "BACKEND_WRONG_REGION", Retry::never},
      {"PreconditionFailed", Code::failed_precondition, "PRECONDITION_FAILED", Retry::never},
      {"ConditionalRequestConflict", Code::aborted, "STORAGE_CONFLICT", Retry::safe},
      {"SlowDown", Code::resource_exhausted, "STORAGE_OVERLOADED", Retry::safe},
      {"InternalError", Code::unavailable, "BACKEND_UNAVAILABLE", Retry::unknown_outcome},
      {"EntityTooLarge", Code::invalid_argument, "PAYLOAD_TOO_LARGE", Retry::never},
      {"BadDigest", Code::data_loss, "TRANSFER_DAMAGED", Retry::safe},
      {"InvalidRange", Code::out_of_range, "RANGE_NOT_SATISFIABLE", Retry::never},
      {"KeyTooLongError", Code::invalid_argument, "INVALID_OBJECT_KEY", Retry::never},
      {"InvalidBucketName", Code::invalid_argument, "INVALID_BUCKET", Retry::never},
      {"MetadataTooLarge", Code::invalid_argument, "INVALID_METADATA", Retry::never},
      {"XMinioStorageFull", Code::resource_exhausted, "DISK_FULL", Retry::never},
      {"NotImplemented", Code::unimplemented, "STORAGE_UNSUPPORTED", Retry::never},
      {"SomethingNew", Code::internal, "STORAGE_ERROR", Retry::never},
  };
  for (const auto& one : cases) {
    const Error got = error(one.code);
    EXPECT_EQ(got.code, one.expected) << one.code;
    EXPECT_EQ(got.reason, one.reason) << one.code;
    EXPECT_EQ(got.retry, one.retry) << one.code;
  }
  EXPECT_EQ(error("SomethingNew", 599).reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(
      error_of({.status = 301, .code = "PermanentRedirect", .message = {}, .region = "eu-west-1"}, {peer, "b", {}})
          .hint,
      "set `region: eu-west-1`");
}

TEST(Errors, AreReadFromAnswers) {
  const Refusal full =
      refusal_of({.status = 404, .headers = {}},
                 "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>no\n such</Message></Error>");
  EXPECT_EQ(full.code, "NoSuchBucket");
  EXPECT_EQ(full.message, "no  such");
  EXPECT_EQ(refusal_of({.status = 404, .headers = {}}, "").code, "NoSuchKey");
  EXPECT_EQ(refusal_of({.status = 403, .headers = {}}, "").code, "AccessDenied");
  EXPECT_EQ(refusal_of({.status = 503, .headers = {}}, "<html>busy</html>").code, "InternalError");
  EXPECT_EQ(refusal_of({.status = 418, .headers = {}}, "").code, "HTTP 418");
}

TEST(Endpoints, OfBuckets) {
  const auto location = [](Options options, const std::string& bucket) {
    const Location l = Endpoint(options).of(bucket);
    return l.origin + " " + l.host + " " + l.path;
  };
  Options aws;
  aws.region = "eu-central-1";
  EXPECT_EQ(location(aws, "media"),
            "https://media.s3.eu-central-1.amazonaws.com media.s3.eu-central-1.amazonaws.com /");
  // A certificate for *.host is none for a.b.host.
  EXPECT_EQ(location(aws, "a.b"), "https://s3.eu-central-1.amazonaws.com s3.eu-central-1.amazonaws.com /a.b/");
  EXPECT_EQ(location(aws, ""), "https://s3.eu-central-1.amazonaws.com s3.eu-central-1.amazonaws.com /");
  Options own;
  own.endpoint = "http://minio:9000/";
  EXPECT_EQ(location(own, "media"), "http://minio:9000 minio:9000 /media/");
  own.path_style = false;
  EXPECT_EQ(location(own, "media"), "http://media.minio:9000 media.minio:9000 /");
  own.endpoint = "https://minio:443";
  own.path_style = true;
  EXPECT_EQ(location(own, "media"), "https://minio minio /media/");
  own.endpoint = "https://10.0.0.1:9000";
  own.tls = client::TlsOptions{.server_name = "minio.internal"};
  EXPECT_EQ(location(own, "media"), "https://minio.internal:9000 10.0.0.1:9000 /media/");
  EXPECT_EQ(Endpoint(own).connect_to(), "::10.0.0.1:9000");
}

TEST(Options, AreChecked) {
  const auto reason = [](const std::string& yaml) -> std::string {
    config::Diagnostics diagnostics;
    const auto node = config::load_text(yaml, {}, diagnostics);
    options_schema().parse(*node, diagnostics);
    return diagnostics.error_count() == 0 ? "" : diagnostics.to_error().reason;
  };
  EXPECT_EQ(reason("{}"), "");
  EXPECT_EQ(reason("{endpoint: 'https://minio:9000', region: eu-central-1, path_style: true, pool: 10, retry: 5}"), "");
  EXPECT_EQ(reason("{access_key_id: a}"), "MISSING_OPTION");
  EXPECT_EQ(reason("{session_token: a}"), "MISSING_OPTION");
  EXPECT_EQ(reason("{endpoint: minio}"), "INVALID_VALUE");
  EXPECT_EQ(reason("{endpoint: 'http://minio', tls: {ca_file: x}}"), "CONTRADICTING_OPTIONS");
  EXPECT_EQ(reason("{endpoint: 'https://minio', tls: {enabled: false}}"), "CONTRADICTING_OPTIONS");
  EXPECT_EQ(reason("{part_size: 1MiB}"), "OUT_OF_RANGE");
}

TEST(Buckets, HaveNamesOfS3) {
  for (const char* good : {"abc", "prism-media", "a.b-c", "123"}) EXPECT_TRUE(check_bucket(good)) << good;
  for (const char* bad : {"", "ab", "Media", "a_b", "-ab", "ab-", "../x", "a b"})
    EXPECT_EQ(check_bucket(bad).error().reason, "INVALID_BUCKET") << bad;
}

}  // namespace
}  // namespace prism::s3
