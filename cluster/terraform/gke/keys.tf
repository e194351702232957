# A key for each service that keeps something, and the service's own account, which uses it.
data "google_project" "main" {}

data "google_storage_project_service_account" "main" {}

resource "google_kms_key_ring" "main" {
  name     = var.name
  location = var.region
}

locals {
  number = data.google_project.main.number
  # service accounts of Google's own, by what they keep
  users = {
    cluster  = "service-${local.number}@container-engine-robot.iam.gserviceaccount.com"
    storage  = data.google_storage_project_service_account.main.email_address
    registry = "service-${local.number}@gcp-sa-artifactregistry.iam.gserviceaccount.com"
    database = "service-${local.number}@gcp-sa-cloud-sql.iam.gserviceaccount.com"
    redis    = "service-${local.number}@cloud-redis.iam.gserviceaccount.com"
    secrets  = "service-${local.number}@gcp-sa-secretmanager.iam.gserviceaccount.com"
  }
}

resource "google_kms_crypto_key" "main" {
  for_each = toset(["cluster", "storage", "registry", "database", "redis", "secrets"])

  name            = each.key
  key_ring        = google_kms_key_ring.main.id
  rotation_period = "7776000s" # 90 days

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key_iam_member" "users" {
  for_each = google_kms_crypto_key.main

  crypto_key_id = each.value.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${local.users[each.key]}"
}
